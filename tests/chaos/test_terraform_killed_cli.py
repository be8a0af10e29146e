"""Engine, keeper and tool die together while AWS resources are under way; the next command ends it right."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.cli import Cli, until
from tests.support.held_aws import Fate, Stand, standing_in

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

WAIT_S = 200.0

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
resource "aws_subnet" "part" {
  count      = 3
  vpc_id     = aws_vpc.main.id
  cidr_block = cidrsubnet(aws_vpc.main.cidr_block, 8, count.index)
}
resource "aws_vpn_gateway" "main" {
  vpc_id = aws_vpc.main.id
}
resource "aws_customer_gateway" "main" {
  bgp_asn    = 65000
  ip_address = "203.0.113.1"
  type       = "ipsec.1"
}
resource "aws_vpn_connection" "main" {
  vpn_gateway_id      = aws_vpn_gateway.main.id
  customer_gateway_id = aws_customer_gateway.main.id
  type                = "ipsec.1"
}
output "subnets" {
  value = aws_subnet.part[*].id
}
"""

COMPOSITION = """\
stages:
  cloud:
    uses: terraform
    with: {source: ./cloud, tool: tofu}
    outputs: {subnets: {type: list}}
"""


@pytest.fixture
def stand() -> Iterator[Stand]:
    with standing_in() as standing_in_for_aws:
        yield standing_in_for_aws


def processes_in(folder: Path) -> dict[int, str]:
    """Everything that was started with that folder in its environment, by process id."""
    found = {}
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit() and str(folder).encode() in (path / "environ").read_bytes():
                found[int(path.name)] = (path / "comm").read_text().strip()
        except OSError:
            continue  # Gone meanwhile.
    return found


@pytest.fixture
def cli(tmp_path: Path, stand: Stand) -> Iterator[Cli]:
    override = tmp_path / "world.json"
    override.write_text(json.dumps(stand.override()))
    made = Cli(tmp_path, env={"SKYSPAN_TERRAFORM_OVERRIDE": str(override), "GOGC": "400"})
    yield made
    made.stop_all()
    for pid in processes_in(tmp_path):
        os.kill(pid, signal.SIGKILL)


def real(stand: Stand) -> list[str]:
    """The ids of everything that the configuration makes, as the account has them."""
    ec2 = stand.client()
    lists: list[tuple[Any, str]] = [
        ([vpc for vpc in ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]], "VpcId"),
        ([item for item in ec2.describe_subnets()["Subnets"] if item["CidrBlock"].startswith("10.20.")], "SubnetId"),
        (ec2.describe_vpn_gateways()["VpnGateways"], "VpnGatewayId"),
        (ec2.describe_customer_gateways()["CustomerGateways"], "CustomerGatewayId"),
        (ec2.describe_vpn_connections()["VpnConnections"], "VpnConnectionId"),
    ]
    return sorted(item[key] for items, key in lists for item in items)


def test_after_all_was_killed_what_is_told_apart_is_taken_up_and_the_rest_is_settled_by_the_printed_command(
    tmp_path: Path, cli: Cli, stand: Stand
) -> None:
    subnets = [0]

    def judge(asked: dict[str, str]) -> Fate:
        subnets[0] += asked["Action"] == "CreateSubnet"
        held = asked["Action"] == "CreateVpnConnection" or (asked["Action"] == "CreateSubnet" and subnets[0] > 1)
        return Fate.HELD if held else Fate.PASS

    app = cli.compose(COMPOSITION)
    (app / "cloud").mkdir()
    (app / "cloud" / "main.tf").write_text(CONFIGURATION)
    stand.begin(judge)
    cli.start("up", "-f", app, "--yes")
    until(lambda: len(stand.stopped) == 3, "two subnets and the connection are under way", timeout_s=WAIT_S)
    running = processes_in(tmp_path)
    assert {"tofu", "terraform-provi"} <= set(running.values()), running
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    cli.started[-1].wait()
    until(lambda: not [pid for pid in processes_in(tmp_path) if pid in running], "the killed are gone")
    stand.release()
    before = real(stand)
    assert len(before) == 7

    refused = cli("resume", "app", timeout_s=WAIT_S)
    assert refused.status == 1, refused
    said = refused.out + refused.err
    assert "an interrupted apply of cloud left 1 resource in doubt" in said, refused
    # Whether its beginning was heard before everything died is chance.
    begun = "(was being created|may have been in creation)"
    assert re.search(rf"aws_vpn_connection\.main: {begun}; Skyspan cannot look for", said), refused
    assert real(stand) == before, "nothing is done while something is in doubt"
    assert cli.json("state", "list", "app", "--stage", "cloud").status == 0

    [command] = re.findall(r"^ *skyspan (state settle .* --import-id) ID$", said, re.MULTILINE)
    [connection] = stand.client().describe_vpn_connections()["VpnConnections"]
    settled = cli(*shlex.split(command), connection["VpnConnectionId"])
    assert settled.status == 0, settled
    ran = cli.up(app, timeout_s=WAIT_S)
    assert ran.status == 0, ran
    assert real(stand) == before, "nothing lost, nothing made twice"
    outputs = cli.json("outputs", "app").document["stages"]["cloud"]["subnets"]
    assert sorted(outputs) == [id_ for id_ in before if id_.startswith("subnet-")]
    assert cli.plan(app, timeout_s=WAIT_S).changes() == {"cloud": "none"}
