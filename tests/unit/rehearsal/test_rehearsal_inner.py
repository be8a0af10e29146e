from __future__ import annotations

import json
from typing import Any

from skyspan.rehearsal.cloud.server import machine_images
from skyspan.rehearsal.inner import environment, override, secrets_document
from skyspan.rehearsal.places import Places
from skyspan.rehearsal.spec import Rehearsal
from skyspan.rehearsal.underlay.names import zone

SITES = {"cloud": {"prefix": "198.51.100.0/24"}}


def section(**parts: Any) -> Rehearsal:
    return Rehearsal.model_validate({"sites": SITES} | parts)


def test_no_credential_of_a_real_account_enters_the_world() -> None:
    outer = {
        "AWS_ACCESS_KEY_ID": "AKIAREAL",
        "AWS_PROFILE": "prod",
        "AWS_SESSION_TOKEN": "real",
        "https_proxy": "http://proxy",
        "SSH_AUTH_SOCK": "/tmp/agent",
        "GOOGLE_APPLICATION_CREDENTIALS": "/x",
        "SKYSPAN_STORE": "postgresql://real",
        "SKYSPAN_PASSPHRASE": "real",
        "PATH": "/usr/bin",
        "SKYSPAN_TOOLS": "/tools",
    }
    inner = environment(outer, section(aws={"site": "cloud"}), Places(), "http://127.0.0.1:1", {})
    assert inner["PATH"] == "/usr/bin"
    assert inner["SKYSPAN_TOOLS"] == "/tools"
    assert inner["AWS_ACCESS_KEY_ID"] == "rehearsal"
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN", "https_proxy", "SSH_AUTH_SOCK", "SKYSPAN_STORE"} & set(inner)
    assert not any("real" in value or "AKIA" in value for value in inner.values() if value != "rehearsal")


def test_a_cloud_gives_its_big_provider_memory_for_time_unless_somebody_decided() -> None:
    made = section(aws={"site": "cloud"})
    assert environment({}, made, Places(), "http://127.0.0.1:1", {})["GOGC"] == "400"
    assert environment({"GOGC": "50"}, made, Places(), "http://127.0.0.1:1", {})["GOGC"] == "50"
    assert "GOGC" not in environment({}, section(), Places(), "", {})


def test_everything_that_is_written_goes_to_memory() -> None:
    inner = environment({"HOME": "/home/me"}, section(), Places(), "", {})
    assert {inner[name] for name in ("HOME", "TMPDIR", "SKYSPAN_HOME")} == {
        "/run/skyspan/user",
        "/run/skyspan/tmp",
        "/run/skyspan/home",
    }


def test_inputs_are_given_as_an_environment_would() -> None:
    made = section(
        secrets={"ssh_key": "generated"},
        inputs={"region": "eu-west-1", "count": 3, "ports": [1, 2], "key": {"public_key_of": "ssh_key"}},
    )
    inner = environment({}, made, Places(), "", {"ssh_key": "ssh-ed25519 AAAA"})
    assert inner["SKYSPAN_INPUT_region"] == "eu-west-1"
    assert json.loads(inner["SKYSPAN_INPUT_count"]) == 3
    assert json.loads(inner["SKYSPAN_INPUT_ports"]) == [1, 2]
    assert inner["SKYSPAN_INPUT_key"] == "ssh-ed25519 AAAA"


def test_without_a_cloud_there_is_no_override() -> None:
    assert "SKYSPAN_TERRAFORM_OVERRIDE" not in environment({}, section(), Places(), "", {})


def test_the_override_sends_every_service_to_the_stand_in() -> None:
    provider = json.loads(override("http://127.0.0.1:1234"))["provider"]["aws"]
    (endpoints,) = provider["endpoints"]
    assert set(endpoints.values()) == {"http://127.0.0.1:1234"}
    assert {"ec2", "sts", "iam", "s3"} <= set(endpoints)
    assert provider["skip_requesting_account_id"] is True


def test_secrets_are_generated_or_given() -> None:
    made = section(secrets={"ssh_key": "generated", "token": {"value": "pretend"}})
    assert json.loads(secrets_document(made, {"ssh_key": "PEM"})) == {"ssh_key": "PEM", "token": "pretend"}


def test_each_image_has_an_id_of_its_own() -> None:
    made = section(aws={"site": "cloud", "images": [{"name": name, "owner": "136693071363"} for name in "ab"]})
    assert len({image["ami_id"] for image in machine_images(made)}) == 2


def test_names_are_the_machines_addresses_or_what_was_put_in_their_place() -> None:
    machines = {"gw": "203.0.113.10", "app": "203.0.113.11"}
    swapped = {"gw": "192.0.2.1", "app": None, "vpn.example.org": "192.0.2.2"}
    assert json.loads(zone(machines, {})) == {"gw": ["203.0.113.10"], "app": ["203.0.113.11"]}
    assert json.loads(zone(machines, swapped)) == {"gw": ["192.0.2.1"], "vpn.example.org": ["192.0.2.2"]}
