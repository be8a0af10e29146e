"""The tool is killed with real AWS resources under way, against an AWS in this process: every one is found again."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from skyspan.model.change import Observation
from skyspan.model.error import Retry, StageError
from skyspan.providers.terraform.holder import processes_of
from skyspan.providers.terraform.journal import Journal
from skyspan.providers.terraform.provider import TerraformProvider
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.testing.provider_world import FoundTools, ProviderWorld, RecordingReporter
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
PATH = f"{ROOT / '.tools' / 'bin'}:{os.environ['PATH']}"

N = 10

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
  default_tags {
    tags = { owner = "somebody" }
  }
}
resource "aws_vpc" "main" {
  cidr_block = "10.20.0.0/16"
}
resource "aws_route_table" "main" {
  vpc_id = aws_vpc.main.id
}
resource "aws_subnet" "part" {
  count      = 10
  vpc_id     = aws_vpc.main.id
  cidr_block = cidrsubnet(aws_vpc.main.cidr_block, 8, count.index)
}
resource "aws_route_table_association" "part" {
  count          = 2
  subnet_id      = aws_subnet.part[count.index].id
  route_table_id = aws_route_table.main.id
}
output "subnets" {
  value = aws_subnet.part[*].id
}
"""


class Slow(BaseHTTPRequestHandler):
    """Stands before the AWS: after four subnets it keeps the answer about a new one to itself, until it is told."""

    protocol_version = "HTTP/1.1"
    behind = ""
    made = 0
    answering = 4
    held = threading.Event()
    turn = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        try:
            # One at a time: the stand-in is not made for several threads.
            with type(self).turn, urlopen(Request(self.behind, body, headers), timeout=30) as said:
                answer, status = said.read(), said.status
        except HTTPError as refused:
            with refused:
                answer, status = refused.read(), refused.code
        if b"Action=CreateSubnet" in body:
            kind = type(self)
            with kind.turn:
                kind.made += 1
                silent = kind.made > kind.answering and not kind.held.is_set()
            if silent:
                kind.held.wait(60)
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The killed tool hangs up: nothing to tell."""


@pytest.fixture
def aws() -> Iterator[tuple[str, type[Slow]]]:
    from moto.backends import get_backend
    from moto.server import ThreadedMotoServer

    get_backend("ec2").reset()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    host, port = server.get_host_and_port()
    kind = type("ThisSlow", (Slow,), {"behind": f"http://{host}:{port}", "held": threading.Event()})
    with Server(("127.0.0.1", 0), kind) as front:
        thread = threading.Thread(target=front.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{front.server_port}", kind
        kind.held.set()
        front.shutdown()
        thread.join()
    server.stop()


@pytest.fixture
async def here() -> AsyncIterator[LocalTransport]:
    transport = LocalTransport({"PATH": PATH, "AWS_EC2_METADATA_DISABLED": "true"})
    yield transport
    await transport.close()


def ec2() -> Any:
    from moto.backends import get_backend

    return get_backend("ec2")["123456789012"]["eu-west-1"]


def subnets() -> list[Any]:
    return [each for zone in ec2().subnets.values() for each in zone.values() if each.cidr_block.startswith("10.20.")]


def world_of(folder: Path, here: LocalTransport, endpoint: str) -> ProviderWorld:
    config = Path(os.environ.get("SKYSPAN_TERRAFORM_CONFIG") or ROOT / ".tools" / "terraform.rc")
    if not config.is_file():
        pytest.fail(f"{config} is missing: run `make tools`")
    provider = {
        "access_key": "test",
        "secret_key": "test",
        "max_retries": 5,
        "skip_credentials_validation": True,
        "skip_metadata_api_check": True,
        "skip_requesting_account_id": True,
        "skip_region_validation": True,
        "endpoints": {"ec2": endpoint, "sts": endpoint, "iam": endpoint},
    }
    (folder / "world.json").write_text(json.dumps({"provider": {"aws": provider}}))
    settings = {"terraform_config": str(config), "terraform_override": str(folder / "world.json")}
    world = ProviderWorld(folder, {None: here}, tools=FoundTools(PATH, settings))
    (world.folder / "cloud").mkdir()
    (world.folder / "cloud" / "main.tf").write_text(CONFIGURATION)
    return world


class Watching(RecordingReporter):
    """Kills the tool, with everything it runs, once four subnets are told done and the others are really there."""

    def __init__(self, world: ProviderWorld) -> None:
        super().__init__()
        self._world = world

    def progress(self, address: str, action: str, state: str, detail: str = "") -> None:
        super().progress(address, action, state, detail)
        done = sum(1 for step in self.progressed if "aws_subnet" in step[0] and step[2] == "done")
        if done < 4:
            return
        give_up = time.monotonic() + 30
        while len(subnets()) < N and time.monotonic() < give_up:
            time.sleep(0.05)
        for pid in processes_of(Journal.load(self._world.kept.data["journal"]).holders[-1]):
            os.kill(pid, signal.SIGKILL)


async def test_after_a_kill_with_six_under_way_all_ten_are_taken_up_and_none_is_made_twice(
    tmp_path: Path, here: LocalTransport, aws: tuple[str, type[Slow]]
) -> None:
    endpoint, front = aws
    world = world_of(tmp_path, here, endpoint)
    provider, spec = TerraformProvider(), TerraformSpec(source="cloud", tool="tofu")
    world.report = Watching(world)
    change = await provider.plan(spec, Observation.absent(), world.reading())
    with pytest.raises(StageError, match="killed by signal 9") as caught:
        await provider.apply(spec, change, world.writing())
    assert caught.value.retry is Retry.LATER
    front.held.set()
    world.report = RecordingReporter()
    left = Journal.load(world.kept.data["journal"])
    assert "state" not in world.kept.data
    assert "lock" in world.kept.data
    assert len([address for address in left.begun if "aws_subnet" in address]) == N - 4
    before = {each.id: each.cidr_block for each in subnets()}
    assert len(before) == N

    seen = await provider.observe(spec, world.reading())
    assert (seen.exists, seen.healthy) == (True, False)
    change = await provider.plan(spec, seen, world.reading())
    assert "12 to import" in change.reason
    there = await provider.apply(spec, change, world.writing())

    assert {each.id: each.cidr_block for each in subnets()} == before, "nothing lost, nothing made twice"
    assert sorted(there.outputs["subnets"].value) == sorted(before)
    assert len([vpc for vpc in ec2().vpcs.values() if vpc.cidr_block == "10.20.0.0/16"]) == 1
    assert {"lock", "journal"} & set(world.kept.data) == set()
    settled = await provider.observe(spec, world.reading())
    assert (settled.drifted, settled.drift, settled.healthy) == (False, (), True), "the tag shows up in no plan"
    await provider.destroy(spec, world.writing())
    assert subnets() == []
    assert world.kept.data == {}
