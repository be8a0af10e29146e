"""What `import` needs to know a resource by, where that is not simply its `id`. Pure.

As the Import sections of the providers' documentation tell it; one that is wrong fails the plan and changes nothing.
A rule reads the resource's planned attributes, in which everything is known once its parents are imported.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

Values = Mapping[str, Any]
Rule = Callable[[str, Values], str | None]


def _joined(separator: str, *names: str) -> Rule:
    """The values of these attributes; with a `|`, the first of several that is known."""

    def rule(identity: str, values: Values) -> str | None:
        parts = [_first(values, choice.split("|")) for choice in names]
        return separator.join(part for part in parts if part) if all(parts) else None

    return rule


def _first(values: Values, names: list[str]) -> str | None:
    """The first of these attributes that is known, as the tools write it."""
    value = next((values[name] for name in names if values.get(name) not in (None, "")), None)
    return str(value).lower() if isinstance(value, bool) else None if value is None else str(value)


def _table_association(identity: str, values: Values) -> str | None:
    return _joined("/", "subnet_id|gateway_id", "route_table_id")(identity, values)


def _route(identity: str, values: Values) -> str | None:
    named = ("destination_cidr_block", "destination_ipv6_cidr_block", "destination_prefix_list_id")
    target = next((str(values[name]) for name in named if values.get(name)), None)
    if target is None:
        return None
    # A route's own id is `r-`, its table and a checksum of its destination (the provider's create.HashString).
    told = identity.removeprefix("r-").removesuffix(str(zlib.crc32(target.encode()))) if identity else ""
    table = values.get("route_table_id") or told
    return f"{table}_{target}" if table else None


def _security_group_rule(identity: str, values: Values) -> str | None:
    sources = [
        *(values.get("cidr_blocks") or ()),
        *(values.get("ipv6_cidr_blocks") or ()),
        *(values.get("prefix_list_ids") or ()),
        *(["self"] if values.get("self") else ()),
        *([values["source_security_group_id"]] if values.get("source_security_group_id") else ()),
    ]
    head = [values.get(name) for name in ("security_group_id", "type", "protocol", "from_port", "to_port")]
    if any(part is None for part in head) or not sources:
        return None
    return "_".join(str(part) for part in [*head, *sources])


def _target_attachment(identity: str, values: Values) -> str | None:
    return None  # Cannot be imported; attaching what is attached changes nothing.


_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "aws_api_gateway_deployment": _joined("/", "rest_api_id", "id"),
        "aws_api_gateway_integration": _joined("/", "rest_api_id", "resource_id", "http_method"),
        "aws_api_gateway_method": _joined("/", "rest_api_id", "resource_id", "http_method"),
        "aws_api_gateway_resource": _joined("/", "rest_api_id", "id"),
        "aws_api_gateway_stage": _joined("/", "rest_api_id", "stage_name"),
        "aws_apigatewayv2_integration": _joined("/", "api_id", "id"),
        "aws_apigatewayv2_route": _joined("/", "api_id", "id"),
        "aws_apigatewayv2_stage": _joined("/", "api_id", "name"),
        "aws_appautoscaling_policy": _joined("/", "service_namespace", "resource_id", "scalable_dimension", "name"),
        "aws_appautoscaling_target": _joined("/", "service_namespace", "resource_id", "scalable_dimension"),
        "aws_cloudwatch_event_target": _joined("/", "event_bus_name", "rule", "target_id"),
        "aws_cloudwatch_log_metric_filter": _joined(":", "log_group_name", "name"),
        "aws_cloudwatch_log_stream": _joined(":", "log_group_name", "name"),
        "aws_cloudwatch_log_subscription_filter": _joined("|", "log_group_name", "name"),
        "aws_cognito_user_pool_client": _joined("/", "user_pool_id", "id"),
        "aws_ecs_cluster": _joined("", "name"),
        "aws_ecs_service": _joined("/", "cluster", "name"),
        "aws_ecs_task_definition": _joined("", "arn"),
        "aws_eks_access_entry": _joined(":", "cluster_name", "principal_arn"),
        "aws_eks_addon": _joined(":", "cluster_name", "addon_name"),
        "aws_eks_node_group": _joined(":", "cluster_name", "node_group_name"),
        "aws_elasticache_user_group_association": _joined(",", "user_group_id", "user_id"),
        "aws_iam_group_policy_attachment": _joined("/", "group", "policy_arn"),
        "aws_iam_role_policy_attachment": _joined("/", "role", "policy_arn"),
        "aws_iam_user_policy_attachment": _joined("/", "user", "policy_arn"),
        "aws_lambda_alias": _joined("/", "function_name", "name"),
        "aws_lambda_permission": _joined("/", "function_name", "statement_id"),
        "aws_lb_target_group_attachment": _target_attachment,
        "aws_network_acl_rule": _joined(":", "network_acl_id", "rule_number", "protocol", "egress"),
        "aws_route": _route,
        "aws_route_table_association": _table_association,
        "aws_security_group_rule": _security_group_rule,
        "aws_volume_attachment": _joined(":", "device_name", "volume_id", "instance_id"),
        "aws_vpc_dhcp_options_association": _joined("", "vpc_id"),
        "aws_vpc_endpoint_route_table_association": _joined("/", "vpc_endpoint_id", "route_table_id"),
        "aws_vpc_endpoint_subnet_association": _joined("/", "vpc_endpoint_id", "subnet_id"),
        "aws_vpn_gateway_attachment": _target_attachment,
    }
)

# A relation between objects of their own: to make it twice is refused or changes nothing, and whoever finds it there
# owns it. So one that was under way may be imported if it is there.
_RELATIONS = frozenset(
    {
        "aws_iam_group_policy_attachment",
        "aws_iam_role_policy_attachment",
        "aws_iam_user_policy_attachment",
        "aws_route",
        "aws_route_table_association",
        "aws_security_group_rule",
        "aws_vpc_endpoint_route_table_association",
        "aws_vpc_endpoint_subnet_association",
    }
)

# Nothing outside of the state: what was lost is made again. A secret that others hold already is made anew, and the
# plan shows who has to change with it.
_LOCAL_PREFIXES = ("random_", "time_", "tls_")
_LOCAL = frozenset({"null_resource", "local_file", "local_sensitive_file"})

# A relation that cannot be imported; making it again finds it made.
_REPEATABLE = frozenset({"aws_lb_target_group_attachment", "aws_vpn_gateway_attachment"})


def is_made_again(type_: str, *, finished: bool) -> bool:
    """Whether a resource that the state has lost is simply made again: nothing of it is left anywhere.

    A `terraform_data` that was finished is imported all the same, so that its provisioners do not run twice.
    """
    local = type_ in _LOCAL or type_ in _REPEATABLE or type_.startswith(_LOCAL_PREFIXES)
    return local or (type_ == "terraform_data" and not finished)


def is_relation(type_: str) -> bool:
    """Whether it only joins other objects, so that one found in place may be taken as ours."""
    return type_ in _RELATIONS


def import_id(type_: str, identity: str, values: Values) -> str | None:
    """What to import the resource by; None while the attributes that it takes are not known.

    `identity` is the `id` that its provider told (empty when it never did), `values` what is known of its attributes.
    """
    rule = _RULES.get(type_)
    if rule is None:
        return identity or None
    return rule(identity, {**values, "id": identity} if identity else values)


def import_blocks(imports: Mapping[str, str]) -> bytes:
    """Configuration that imports all of these (address to import id); native syntax, valid in both tools since 1.6."""
    blocks = [f"import {{\n  to = {address}\n  id = {_quoted(id_)}\n}}\n" for address, id_ in sorted(imports.items())]
    return "".join(blocks).encode()


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")
