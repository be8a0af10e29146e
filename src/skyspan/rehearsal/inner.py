"""What the Skyspan inside a world is given besides the network: environment, secrets, Terraform's override (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from skyspan.rehearsal.cloud.server import ACCOUNT_KEY
from skyspan.rehearsal.places import Places
from skyspan.rehearsal.spec import GivenSecret, PublicKeyOf, Rehearsal

_DROPPED_PREFIXES = tuple(
    f"{name}_"
    for name in ("ARM", "AWS", "AZURE", "CLOUDSDK", "DIGITALOCEAN", "GCLOUD", "GOOGLE", "SKYSPAN", "TS", "XDG")
)
_DROPPED = frozenset(
    {
        *("ALL_PROXY", "FTP_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "SSH_AGENT_PID", "SSH_AUTH_SOCK"),
        *("DOCKER_HOST", "GITHUB_TOKEN", "GITLAB_TOKEN", "HCLOUD_TOKEN", "KUBECONFIG", "VAULT_ADDR", "VAULT_TOKEN"),
    }
)
_KEPT = frozenset({"SKYSPAN_TOOLS", "SKYSPAN_TERRAFORM_CONFIG", "SKYSPAN_CONCURRENCY"})

_AWS_SERVICES = (
    *("acm", "autoscaling", "cloudwatch", "dynamodb", "ec2", "elb", "elbv2", "iam", "kms", "lambda", "logs"),
    *("route53", "s3", "secretsmanager", "sns", "sqs", "ssm", "sts"),
)
"""What the AWS provider may ask; a service that moto was not installed with answers with an error of its own."""


def harmless(outer: Mapping[str, str]) -> dict[str, str]:
    """An environment without credentials, proxies and Skyspan's own settings: also for what runs the world itself."""
    return {
        name: value
        for name, value in outer.items()
        if name in _KEPT or not (name.upper() in _DROPPED or name.upper().startswith(_DROPPED_PREFIXES))
    }


def environment(
    outer: Mapping[str, str], rehearsal: Rehearsal, places: Places, aws_url: str, public_keys: Mapping[str, str]
) -> dict[str, str]:
    """The environment of everything in the world: the caller's, without credentials or ways to real services."""
    kept = harmless(outer) | {
        "HOME": str(places.root / "user"),
        "TMPDIR": str(places.root / "tmp"),
        "SKYSPAN_HOME": str(places.root / "home"),
        "SKYSPAN_REHEARSAL": "1",
        "SKYSPAN_REHEARSAL_SECRETS": str(places.secrets),
        "SKYSPAN_KNOWN_HOSTS": str(places.known_hosts),
    }
    if aws_url:
        # The AWS provider is a big program that is started over and over: collecting garbage is a quarter of its time.
        kept.setdefault("GOGC", "400")
        kept |= {
            "SKYSPAN_TERRAFORM_OVERRIDE": str(places.override),
            "AWS_ACCESS_KEY_ID": ACCOUNT_KEY,
            "AWS_SECRET_ACCESS_KEY": ACCOUNT_KEY,
            "AWS_ENDPOINT_URL": aws_url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    for name, value in rehearsal.inputs.items():
        given = public_keys[value.public_key_of] if isinstance(value, PublicKeyOf) else value
        kept[f"SKYSPAN_INPUT_{name}"] = given if isinstance(given, str) else json.dumps(given)
    return kept


def override(aws_url: str) -> str:
    """The override file's text: settings for the AWS provider that send every request to the stand-in."""
    settings: dict[str, Any] = {
        "access_key": ACCOUNT_KEY,
        "secret_key": ACCOUNT_KEY,
        "token": "",
        "skip_credentials_validation": True,
        "skip_metadata_api_check": "true",
        "skip_region_validation": True,
        "skip_requesting_account_id": True,
        "s3_use_path_style": True,
        "endpoints": [dict.fromkeys(_AWS_SERVICES, aws_url)],
    }
    return json.dumps({"provider": {"aws": settings}}, indent=2) + "\n"


def secrets_document(rehearsal: Rehearsal, private_keys: Mapping[str, str]) -> str:
    """The secrets by name, as JSON."""
    return json.dumps(
        {
            name: secret.value if isinstance(secret, GivenSecret) else private_keys[name]
            for name, secret in rehearsal.secrets.items()
        }
    )
