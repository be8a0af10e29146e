"""Links into the consoles of the clouds."""

from __future__ import annotations

from string import Formatter

import pytest

from skyspan.providers.terraform.console_links import AWS, GOOGLE, console_links, console_url
from skyspan.providers.terraform.state import Instance

VPC = {"id": "vpc-1", "arn": "arn:aws:ec2:eu-west-1:123:vpc/vpc-1"}


@pytest.mark.parametrize(
    ("type_", "attributes", "url"),
    [
        (
            "aws_vpc",
            VPC,
            "https://eu-west-1.console.aws.amazon.com/vpcconsole/home?region=eu-west-1#VpcDetails:VpcId=vpc-1",
        ),
        (
            "aws_instance",
            {"id": "i-1", "arn": "arn:aws-cn:ec2:cn-north-1:1:instance/i-1"},
            "https://cn-north-1.console.amazonaws.cn/ec2/home?region=cn-north-1#InstanceDetails:instanceId=i-1",
        ),
        (
            "aws_vpn_connection",
            {"id": "vpn-1", "arn": "arn:aws-us-gov:ec2:us-gov-west-1:1:vpn-connection/vpn-1"},
            "https://us-gov-west-1.console.amazonaws-us-gov.com/vpcconsole/home?region=us-gov-west-1"
            "#VpnConnectionDetails:VpnConnectionId=vpn-1",
        ),
        (
            "aws_s3_bucket",
            {"id": "my-bucket", "arn": "arn:aws:s3:::my-bucket", "region": "eu-west-1"},
            "https://s3.console.aws.amazon.com/s3/buckets/my-bucket?region=eu-west-1",
        ),
        (
            "aws_iam_role",
            {"name": "a role", "arn": "arn:aws:iam::1:role/a role"},
            "https://console.aws.amazon.com/iam/home#/roles/a%20role",
        ),
        (
            "google_compute_instance",
            {
                "name": "vm",
                "project": "p",
                "zone": "https://www.googleapis.com/compute/v1/projects/p/zones/europe-west1-b",
            },
            "https://console.cloud.google.com/compute/instancesDetail/zones/europe-west1-b/instances/vm?project=p",
        ),
        (
            "azurerm_virtual_network",
            {"id": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/n"},
            "https://portal.azure.com/#resource/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/n",
        ),
        ("azurerm_subnet_route_table_association", {"id": "not-an-azure-id"}, ""),
        ("aws_vpc", {"id": "vpc-1"}, ""),
        ("aws_vpc", {"id": "vpc-1", "arn": "arn:aws-moon:ec2:mare:1:vpc/vpc-1"}, ""),
        ("aws_vpc", {"id": None, "arn": None}, ""),
        ("terraform_data", {"id": "x"}, ""),
    ],
)
def test_a_resource_has_its_console_page(type_: str, attributes: dict[str, str], url: str) -> None:
    assert console_url(type_, attributes) == url


@pytest.mark.parametrize("type_", sorted({**AWS, **GOOGLE}))
def test_every_row_of_the_tables_gives_a_link(type_: str) -> None:
    pattern = {**AWS, **GOOGLE}[type_]
    names = [name for _, name, _, _ in Formatter().parse(pattern) if name]
    attributes = dict.fromkeys(names, "value") | {"arn": "arn:aws:s:eu-west-1:1:thing/x", "region": "eu-west-1"}
    url = console_url(type_, attributes)
    assert url.startswith("https://")
    assert "{" not in url


def test_nothing_in_an_attribute_leaves_its_place_in_the_address() -> None:
    url = console_url("aws_ecs_cluster", {"name": "a/../b?x#y", "arn": "arn:aws:ecs:eu-west-1:1:cluster/x"})
    assert url.endswith("/clusters/a%2F..%2Fb%3Fx%23y?region=eu-west-1")


def test_resources_on_one_page_are_listed_once() -> None:
    address = {"name": "a", "project": "p"}
    found = console_links(
        [
            Instance("google_compute_address.a", "google_compute_address", address),
            Instance("google_compute_address.b", "google_compute_address", address),
            Instance("aws_vpc.main", "aws_vpc", VPC),
            Instance("terraform_data.x", "terraform_data", {}),
        ]
    )
    assert [link.title for link in found] == ["google_compute_address.a", "aws_vpc.main"]
