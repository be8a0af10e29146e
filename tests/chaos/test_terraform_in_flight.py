"""Resources of every common AWS type are under way when the tool is killed: each is found again or asked about."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.held_aws import Fate, Killing, Stand, standing_in, world_before

from skyspan.model.change import Action, Observation
from skyspan.model.error import Retry, StageError
from skyspan.providers.terraform import by_hand
from skyspan.providers.terraform.journal import Journal
from skyspan.providers.terraform.provider import TerraformProvider
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.testing.provider_world import RecordingReporter

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

# What is called `first` is done, what is called `held` under way, and `lost` is a request that never arrived; relations
# join what is done, and all of them are under way.
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
locals {
  names = toset(["first", "held"])
  trust = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Action = "sts:AssumeRole", Effect = "Allow", Principal = { Service = "ec2.amazonaws.com" } }]
  })
}
resource "aws_vpc" "all" {
  for_each   = local.names
  cidr_block = each.key == "first" ? "10.20.0.0/16" : "10.30.0.0/16"
  tags       = { Name = each.key }
}
resource "aws_subnet" "all" {
  for_each   = local.names
  vpc_id     = aws_vpc.all["first"].id
  cidr_block = each.key == "first" ? "10.20.1.0/24" : "10.20.2.0/24"
  tags       = { Name = each.key }
}
resource "aws_internet_gateway" "all" {
  for_each = setunion(local.names, ["lost"])
  vpc_id   = each.key == "first" ? aws_vpc.all["first"].id : null
  tags     = { Name = each.key }
}
resource "aws_route_table" "all" {
  for_each = local.names
  vpc_id   = aws_vpc.all["first"].id
  tags     = { Name = each.key }
}
resource "aws_security_group" "all" {
  for_each    = local.names
  name        = each.key
  description = "of the test"
  vpc_id      = aws_vpc.all["first"].id
  tags        = { Name = each.key }
}
resource "aws_key_pair" "all" {
  for_each   = local.names
  key_name   = "key-${each.key}"
  public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFuXq5xG2NVTkLpsZR+YJBRkVhdEZvUs9lWmjZoxzG2p"
}
resource "aws_eip" "all" {
  for_each = local.names
  domain   = "vpc"
  tags     = { Name = each.key }
}
resource "aws_vpn_gateway" "all" {
  for_each = local.names
  tags     = { Name = each.key }
}
resource "aws_customer_gateway" "all" {
  for_each   = local.names
  bgp_asn    = 65000
  ip_address = each.key == "first" ? "203.0.113.1" : "203.0.113.2"
  type       = "ipsec.1"
}
resource "aws_network_interface" "all" {
  for_each    = local.names
  subnet_id   = aws_subnet.all["first"].id
  description = each.key
}
resource "aws_nat_gateway" "all" {
  for_each          = local.names
  subnet_id         = aws_subnet.all["first"].id
  connectivity_type = "private"
  tags              = { Name = each.key }
}
resource "aws_instance" "all" {
  for_each      = local.names
  ami           = "ami-12c6146b"
  instance_type = "t3.micro"
  subnet_id     = aws_subnet.all["first"].id
  tags          = { Name = each.key }
}
resource "aws_iam_role" "all" {
  for_each           = local.names
  name               = "role-${each.key}"
  assume_role_policy = local.trust
}
resource "aws_iam_role_policy_attachment" "held" {
  role       = aws_iam_role.all["first"].name
  policy_arn = "arn:aws:iam::123456789012:policy/of-another"
}
resource "aws_route" "held" {
  route_table_id         = aws_route_table.all["first"].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.all["first"].id
}
resource "aws_route_table_association" "held" {
  subnet_id      = aws_subnet.all["first"].id
  route_table_id = aws_route_table.all["first"].id
}
resource "aws_security_group_rule" "held" {
  for_each          = toset(["ingress", "egress"])
  type              = each.key
  security_group_id = aws_security_group.all["first"].id
  protocol          = "tcp"
  from_port         = 22
  to_port           = 22
  cidr_blocks       = ["10.0.0.0/8"]
}
resource "aws_vpc_security_group_ingress_rule" "held" {
  security_group_id = aws_security_group.all["first"].id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "10.0.0.0/8"
}
resource "aws_vpc_security_group_egress_rule" "held" {
  security_group_id = aws_security_group.all["first"].id
  ip_protocol       = "udp"
  from_port         = 53
  to_port           = 53
  cidr_ipv4         = "10.0.0.0/8"
}
resource "aws_vpn_connection" "held" {
  vpn_gateway_id      = aws_vpn_gateway.all["first"].id
  customer_gateway_id = aws_customer_gateway.all["first"].id
  type                = "ipsec.1"
}
"""

POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}'
FOUND = {
    "CreateVpc", "CreateSubnet", "CreateInternetGateway", "CreateRouteTable", "CreateSecurityGroup", "ImportKeyPair",
    "AllocateAddress", "CreateVpnGateway", "CreateCustomerGateway", "CreateNetworkInterface",
    "CreateNatGateway", "RunInstances", "CreateRole",
}  # fmt: skip
RELATIONS = {
    "AttachRolePolicy", "CreateRoute", "AssociateRouteTable", "AuthorizeSecurityGroupIngress",
    "AuthorizeSecurityGroupEgress", "CreateVpnConnection",
}  # fmt: skip
DONE = len(FOUND)
UNDER_WAY = len(FOUND) + 1 + 8
UNANSWERED = UNDER_WAY - 1
"""The provider makes the classic rules of one security group one after the other, so one of the two waits inside it."""
EXISTING = DONE + UNANSWERED - 1


def judge(asked: dict[str, str]) -> Fate:
    """Keeps the answer about every relation and everything called `held`; those that can bear the tag do."""
    action = asked["Action"]
    if action in FOUND:
        assert "skyspan-attempt" in asked.values(), f"{action} comes without the tag"
        if "lost" in asked.values():
            return Fate.LOST
        held = any("held" in value or value in {"10.30.0.0/16", "203.0.113.2"} for value in asked.values())
        return Fate.HELD if held else Fate.PASS
    return Fate.HELD if action in RELATIONS else Fate.PASS


def account(stand: Stand) -> dict[str, int]:
    """How many objects of each kind stand in the account, without what is there by itself."""
    ec2, iam = stand.client(), stand.client("iam")
    own = [vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]]
    inside: Any = {"Filters": [{"Name": "vpc-id", "Values": own or ["vpc-0"]}]}
    groups = [
        item for item in ec2.describe_security_groups(**inside)["SecurityGroups"] if item["GroupName"] != "default"
    ]
    tables = ec2.describe_route_tables(**inside)["RouteTables"]
    machines = [one for item in ec2.describe_instances()["Reservations"] for one in item["Instances"]]
    running = [one for one in machines if one["State"]["Name"] not in ("terminated", "shutting-down")]
    roles = [item["RoleName"] for item in iam.list_roles()["Roles"]]
    interfaces = [one for one in ec2.describe_network_interfaces(**inside)["NetworkInterfaces"] if one["Description"]]

    def live(items: list[Any]) -> int:
        return sum(item.get("State", "") not in ("deleted", "deleting") for item in items)

    return {
        "vpc": len(own),
        "subnet": len(ec2.describe_subnets(**inside)["Subnets"]),
        "internet gateway": len(ec2.describe_internet_gateways()["InternetGateways"]),
        "route table": sum(not any(item.get("Main") for item in table["Associations"]) for table in tables),
        "association": sum(not item.get("Main") for table in tables for item in table["Associations"]),
        "route": sum(route.get("DestinationCidrBlock") == "0.0.0.0/0" for table in tables for route in table["Routes"]),
        "security group": len(groups),
        "rule": sum(len(group[way]) for group in groups for way in ("IpPermissions", "IpPermissionsEgress")),
        "key pair": len(ec2.describe_key_pairs()["KeyPairs"]),
        "address": len(ec2.describe_addresses()["Addresses"]),
        "vpn gateway": live(ec2.describe_vpn_gateways()["VpnGateways"]),
        "customer gateway": live(ec2.describe_customer_gateways()["CustomerGateways"]),
        "vpn connection": live(ec2.describe_vpn_connections()["VpnConnections"]),
        "nat gateway": live(ec2.describe_nat_gateways()["NatGateways"]),
        "interface": len(interfaces),
        "instance": len(running),
        "role": len(roles),
        "policy": sum(len(iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]) for name in roles),
    }  # fmt: skip


def stray_of(stand: Stand, attempt: str) -> str:
    """A subnet that the attempt made and that is like none of those it wanted, as a second try at a request makes."""
    ec2 = stand.client()
    [vpc] = [item["VpcId"] for item in ec2.describe_vpcs()["Vpcs"] if item["CidrBlock"] == "10.20.0.0/16"]
    tags = [{"ResourceType": "subnet", "Tags": [{"Key": "skyspan-attempt", "Value": attempt}]}]
    made = ec2.create_subnet(VpcId=vpc, CidrBlock="10.20.9.0/24", TagSpecifications=tags)
    return str(made["Subnet"]["SubnetId"])


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    with standing_in() as standing_in_for_aws:
        yield standing_in_for_aws


async def test_each_type_under_way_is_found_again_and_the_one_that_cannot_be_is_settled_by_the_printed_command(
    tmp_path: Path, stand: Stand
) -> None:
    world = world_before(stand, tmp_path, CONFIGURATION)
    provider, spec = TerraformProvider(), TerraformSpec(source="cloud", tool="tofu", parallelism=40)
    stand.begin(judge)
    stand.client("iam").create_policy(PolicyName="of-another", PolicyDocument=POLICY)
    world.report = Killing(world, stand, DONE, UNANSWERED)
    change = await provider.plan(spec, Observation.absent(), world.reading())
    with pytest.raises(StageError, match="killed by signal 9"):
        await provider.apply(spec, change, world.writing())
    assert {asked["Action"] for asked in stand.stopped} == FOUND | RELATIONS
    assert len(stand.stopped) == UNANSWERED
    stand.release()
    world.report = RecordingReporter()
    left = Journal.load(world.kept.data["journal"])
    stray = stray_of(stand, left.holders[-1].attempt)
    assert (len(left.made), len(left.begun)) == (DONE, UNDER_WAY)
    before = account(stand)

    seen = await provider.observe(spec, world.reading())
    with pytest.raises(StageError, match="3 resources in doubt and 1 object that no") as caught:
        await provider.plan(spec, seen, world.reading())
    assert caught.value.retry is Retry.NEVER
    assert caught.value.detail.splitlines() == [
        f'aws_key_pair.all["{name}"]: exists as key-{name}; its public_key is not read back as planned, so that to'
        " import it is to replace it"
        for name in ("first", "held")
    ] + [
        "aws_vpn_connection.held: was being created; Skyspan cannot look for aws_vpn_connection",
        f"aws_subnet {stray}: was made by it, and no resource claims it",
    ]
    assert caught.value.hint.splitlines()[-1] == (f"aws ec2 delete-tags --resources {stray} --tags Key=skyspan-attempt")
    stand.client().delete_tags(Resources=[stray], Tags=[{"Key": "skyspan-attempt"}])
    [connection] = stand.client().describe_vpn_connections()["VpnConnections"]
    for command in re.findall(r"^skyspan state settle .* --import-id .*$", caught.value.hint, re.MULTILINE):
        address, known = shlex.split(command)[3], shlex.split(command)[-1]
        await by_hand.settle(world.kept, address, connection["VpnConnectionId"] if known == "ID" else known)

    change = await provider.plan(spec, seen, world.reading())
    assert f"{EXISTING} to import" in change.reason, change.reason
    others = [(item.address.partition("[")[0], item.action) for item in change.resources if item.note != "imported"]
    assert others == [
        ("aws_internet_gateway.all", Action.CREATE),
        ("aws_key_pair.all", Action.REPLACE),
        ("aws_key_pair.all", Action.REPLACE),
        ("aws_security_group_rule.held", Action.CREATE),
    ], change.resources
    await provider.apply(spec, change, world.writing())
    now = before | {"rule": before["rule"] + 1, "internet gateway": before["internet gateway"] + 1}
    assert account(stand) == now, "nothing lost, nothing made twice"
    settled = await provider.observe(spec, world.reading())
    assert (settled.drift, settled.healthy) == ((), True)
    assert "journal" not in world.kept.data
