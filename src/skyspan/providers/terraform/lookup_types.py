"""How objects of each resource type are found by the provider's own data sources, and told apart: a table. Pure.

As the AWS provider's documentation tells it, for its releases 5.62 to 6. A wrong entry fails a plan that only reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class Tagged(StrEnum):
    """How the attempt's tag tells whether an object is of that attempt.

    `FILTER`: the API finds by it. `SEEN`: it is shown, but cannot be asked for. `NONE`: objects get it too late or
    never; then the attributes have to do, which is right for what the API refuses to make a second time.
    """

    FILTER = "filter"
    SEEN = "seen"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Source:
    """How objects of one type are found. `listing` gives their ids as `ids`, `detail` one of them by `key`.

    `attributes` are those that tell two of them apart, by the resource's name, with the data source's where it differs;
    `hints` are kept as well. `filters` narrow the question by the API's filter for an attribute. Nothing can be asked
    before all of `needs` are known. `identity` is what it is imported by. `condition` picks among what was found, `x`
    being each of it. Without a listing, `detail` takes the filter itself and fails unless it finds exactly one.
    """

    detail: str
    attributes: Mapping[str, str]
    listing: str = ""
    ids: str = "ids"
    key: str = "id"
    identity: str = "id"
    tagged: Tagged = Tagged.FILTER
    filters: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    hints: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    condition: str = ""


_TAGS: Mapping[str, str] = MappingProxyType({"tags_all": "tags"})


def _rule(condition: str) -> Source:
    """A rule of a security group. It is tagged by a second request; the API refuses another one like it."""
    return Source(
        "aws_vpc_security_group_rule",
        dict.fromkeys(
            (
                "security_group_id",
                "ip_protocol",
                "from_port",
                "to_port",
                "cidr_ipv4",
                "cidr_ipv6",
                "prefix_list_id",
                "referenced_security_group_id",
            ),
            "",
        ),
        "aws_vpc_security_group_rules",
        key="security_group_rule_id",
        tagged=Tagged.NONE,
        filters={"security_group_id": "group-id"},
        needs=("security_group_id",),
        condition=condition,
    )


SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "aws_customer_gateway": Source(
            "aws_customer_gateway",
            {"ip_address": "", "bgp_asn": "", "type": "", "device_name": "", **_TAGS},
            filters={"ip_address": "ip-address"},
            fixed={"filter": [{"name": "state", "values": ["pending", "available"]}]},
        ),
        "aws_eip": Source("aws_eip", {"domain": "", **_TAGS}, "aws_eips", ids="allocation_ids"),
        "aws_iam_role": Source(
            "aws_iam_role",
            {"name": "", "path": "", "description": "", **_TAGS},
            "aws_iam_roles",
            ids="names",
            key="name",
            tagged=Tagged.SEEN,
            hints=("name_prefix",),
        ),
        "aws_instance": Source(
            "aws_instance",
            {"ami": "", "instance_type": "", "subnet_id": "", "private_ip": "", **_TAGS},
            "aws_instances",
            key="instance_id",
            fixed={"instance_state_names": ["pending", "running", "stopping", "stopped"]},
        ),
        "aws_internet_gateway": Source("aws_internet_gateway", _TAGS),
        "aws_key_pair": Source(
            "aws_key_pair", {"key_name": "", **_TAGS}, identity="key_name", filters={"key_name": "key-name"}
        ),
        "aws_nat_gateway": Source(
            "aws_nat_gateway",
            {"subnet_id": "", "allocation_id": "", "connectivity_type": "", **_TAGS},
            "aws_nat_gateways",
            fixed={"filter": [{"name": "state", "values": ["pending", "available"]}]},
        ),
        "aws_network_interface": Source(
            "aws_network_interface",
            {"subnet_id": "", "description": "", "private_ips": "", **_TAGS},
            "aws_network_interfaces",
        ),
        "aws_route_table": Source(
            "aws_route_table", {"vpc_id": "", **_TAGS}, "aws_route_tables", key="route_table_id"
        ),
        "aws_security_group": Source(
            "aws_security_group", {"name": "", "description": "", "vpc_id": "", **_TAGS}, "aws_security_groups"
        ),
        "aws_subnet": Source(
            "aws_subnet", {"cidr_block": "", "vpc_id": "", "availability_zone": "", **_TAGS}, "aws_subnets"
        ),
        "aws_vpc": Source("aws_vpc", {"cidr_block": "", "instance_tenancy": "", **_TAGS}, "aws_vpcs"),
        "aws_vpc_security_group_egress_rule": _rule("x.is_egress"),
        "aws_vpc_security_group_ingress_rule": _rule("!x.is_egress"),
        "aws_vpn_gateway": Source(
            "aws_vpn_gateway",
            {"amazon_side_asn": "", "availability_zone": "", **_TAGS},
        ),
    }
)  # fmt: skip
"""By resource type. Those with several objects at a time and no listing are asked for one by one."""
