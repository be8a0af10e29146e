"""The terraform provider with the real AWS provider against an AWS in this process: drift, endpoints, credentials."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from skyspan.model.change import Action, Observation
from skyspan.model.error import CredentialsError, Retry
from skyspan.providers.terraform.provider import TerraformProvider
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.testing.provider_world import FoundTools, ProviderWorld
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
PATH = f"{ROOT / '.tools' / 'bin'}:{os.environ['PATH']}"

CONFIGURATION = """
terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}
provider "aws" {
  region = "eu-west-1"
}
resource "aws_vpc" "main" {
  cidr_block = "10.20.0.0/16"
}
resource "aws_route_table" "main" {
  vpc_id = aws_vpc.main.id
}
resource "aws_internet_gateway" "main" {
  vpc_id = aws_vpc.main.id
}
# Made after the table, so a refresh shows the table as changed.
resource "aws_route" "out" {
  route_table_id         = aws_route_table.main.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.main.id
}
output "vpc_id" {
  value = aws_vpc.main.id
}
output "cidr" {
  value = aws_vpc.main.cidr_block
}
"""


def settings_for(folder: Path, endpoint: str, *, check_credentials: bool = False) -> dict[str, str]:
    """Tool settings that lead the AWS provider to `endpoint`, as a rehearsal does."""
    config = Path(os.environ.get("SKYSPAN_TERRAFORM_CONFIG") or ROOT / ".tools" / "terraform.rc")
    if not config.is_file():
        pytest.fail(f"{config} is missing: run `make tools`")
    provider = {
        "access_key": "test",
        "secret_key": "test",
        "max_retries": 5,
        "skip_credentials_validation": not check_credentials,
        "skip_metadata_api_check": True,
        "skip_requesting_account_id": True,
        "skip_region_validation": True,
        "endpoints": {"ec2": endpoint, "sts": endpoint, "iam": endpoint},
    }
    override = folder / "world.json"
    override.write_text(json.dumps({"provider": {"aws": provider, "google": {"project": "unused"}}}))
    return {"terraform_config": str(config), "terraform_override": str(override)}


@pytest.fixture
async def here() -> AsyncIterator[LocalTransport]:
    transport = LocalTransport({"PATH": PATH, "AWS_EC2_METADATA_DISABLED": "true", "GOGC": "400"})
    yield transport
    await transport.close()


@pytest.fixture
def aws() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def ec2() -> Any:
    from moto.backends import get_backend

    return get_backend("ec2")["123456789012"]["eu-west-1"]


def world_of(folder: Path, here: LocalTransport, settings: dict[str, str]) -> ProviderWorld:
    world = ProviderWorld(folder, {None: here}, tools=FoundTools(PATH, settings))
    (world.folder / "cloud").mkdir()
    (world.folder / "cloud" / "main.tf").write_text(CONFIGURATION)
    return world


async def test_what_was_deleted_behind_our_back_is_seen_planned_and_made_again(
    tmp_path: Path, here: LocalTransport, aws: str
) -> None:
    world = world_of(tmp_path, here, settings_for(tmp_path, aws))
    provider, spec = TerraformProvider(), TerraformSpec(source="cloud")

    change = await provider.plan(spec, Observation.absent(), world.reading())
    assert change.action is Action.CREATE
    assert {name: output.value for name, output in change.outputs.items()} == {"cidr": "10.20.0.0/16"}
    there = await provider.apply(spec, change, world.writing())
    vpc = there.outputs["vpc_id"].value
    assert vpc in ec2().vpcs
    assert [link.url for link in there.links if link.title == "aws_vpc.main"] == [
        f"https://eu-west-1.console.aws.amazon.com/vpcconsole/home?region=eu-west-1#VpcDetails:VpcId={vpc}"
    ]

    lock_file = (world.work / "tree/cloud/.terraform.lock.hcl").read_bytes()
    shutil.rmtree(world.work)
    settled = await provider.observe(spec, world.reading())
    assert (world.work / "tree/cloud/.terraform.lock.hcl").read_bytes() == lock_file
    assert (settled.drifted, settled.drift) == (False, ()), "attributes that other resources have set are no drift"

    gateway = next(iter(ec2().internet_gateways))
    ec2().detach_internet_gateway(gateway, vpc)
    ec2().delete_internet_gateway(gateway)
    seen = await provider.observe(spec, world.reading())
    assert seen.drifted
    assert "aws_internet_gateway.main (gone)" in seen.reason
    drift = {item.address: item.action for item in seen.drift}
    assert drift["aws_internet_gateway.main"] is Action.CREATE
    assert seen.fingerprint != settled.fingerprint

    mended = await provider.apply(spec, await provider.plan(spec, seen, world.reading()), world.writing())
    assert mended.outputs["vpc_id"].value == vpc
    assert len(ec2().internet_gateways) == 1
    await provider.destroy(spec, world.writing())
    assert vpc not in ec2().vpcs
    assert world.kept.data == {}


class Refusing(BaseHTTPRequestHandler):
    """An AWS that knows nobody."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = (
            b"<ErrorResponse><Error><Type>Sender</Type><Code>InvalidClientTokenId</Code>"
            b"<Message>The security token included in the request is invalid.</Message></Error></ErrorResponse>"
        )
        self.send_response(403)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


async def test_credentials_that_the_cloud_refuses_are_told_as_such(tmp_path: Path, here: LocalTransport) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        world = world_of(tmp_path, here, settings_for(tmp_path, endpoint, check_credentials=True))
        try:
            with pytest.raises(CredentialsError) as caught:
                await TerraformProvider().plan(TerraformSpec(source="cloud"), Observation.absent(), world.reading())
        finally:
            server.shutdown()
            thread.join()
    assert "InvalidClientTokenId" in caught.value.detail
    assert "env:" in caught.value.hint
    assert caught.value.retry is Retry.NEVER
