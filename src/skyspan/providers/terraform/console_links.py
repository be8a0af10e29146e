"""Where a person can look at a resource: the web consoles of AWS, Google Cloud and Azure. Pure.

AWS and Google: one row per resource type, filled from the attributes in the state; a row whose attributes are missing
gives no link. Azure: its portal takes every resource ID.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from skyspan.model.change import ConsoleLink
from skyspan.providers.terraform.state import Instance

_VPC = "https://{region}.{aws}/vpcconsole/home?region={region}#"
_EC2 = "https://{region}.{aws}/ec2/home?region={region}#"

AWS: Mapping[str, str] = MappingProxyType(
    {
        "aws_vpc": _VPC + "VpcDetails:VpcId={id}",
        "aws_subnet": _VPC + "SubnetDetails:subnetId={id}",
        "aws_route_table": _VPC + "RouteTableDetails:RouteTableId={id}",
        "aws_internet_gateway": _VPC + "InternetGateway:internetGatewayId={id}",
        "aws_nat_gateway": _VPC + "NatGatewayDetails:natGatewayId={id}",
        "aws_vpn_connection": _VPC + "VpnConnectionDetails:VpnConnectionId={id}",
        "aws_vpn_gateway": _VPC + "VpnGatewayDetails:VpnGatewayId={id}",
        "aws_customer_gateway": _VPC + "CustomerGatewayDetails:CustomerGatewayId={id}",
        "aws_network_acl": _VPC + "NetworkAclDetails:networkAclId={id}",
        "aws_vpc_endpoint": _VPC + "EndpointDetails:vpcEndpointId={id}",
        "aws_vpc_peering_connection": _VPC + "PeeringConnectionDetails:vpcPeeringConnectionId={id}",
        "aws_ec2_transit_gateway": _VPC + "TransitGatewayDetails:transitGatewayId={id}",
        "aws_instance": _EC2 + "InstanceDetails:instanceId={id}",
        "aws_security_group": _EC2 + "SecurityGroup:groupId={id}",
        "aws_eip": _EC2 + "ElasticIpDetails:AllocationId={id}",
        "aws_ebs_volume": _EC2 + "VolumeDetails:volumeId={id}",
        "aws_network_interface": _EC2 + "NetworkInterface:networkInterfaceId={id}",
        "aws_key_pair": _EC2 + "KeyPairs:keyName={key_name}",
        "aws_launch_template": _EC2 + "LaunchTemplateDetails:launchTemplateId={id}",
        "aws_autoscaling_group": _EC2 + "AutoScalingGroupDetails:id={name};view=details",
        "aws_lb": _EC2 + "LoadBalancer:loadBalancerArn={arn}",
        "aws_lb_target_group": _EC2 + "TargetGroup:targetGroupArn={arn}",
        "aws_s3_bucket": "https://s3.{aws}/s3/buckets/{id}?region={region}",
        "aws_lambda_function": "https://{region}.{aws}/lambda/home?region={region}#/functions/{function_name}",
        "aws_ecs_cluster": "https://{region}.{aws}/ecs/v2/clusters/{name}?region={region}",
        "aws_eks_cluster": "https://{region}.{aws}/eks/home?region={region}#/clusters/{name}",
        "aws_db_instance": "https://{region}.{aws}/rds/home?region={region}#database:id={identifier};is-cluster=false",
        "aws_rds_cluster": "https://{region}.{aws}/rds/home?region={region}#database:id={id};is-cluster=true",
        "aws_dynamodb_table": "https://{region}.{aws}/dynamodbv2/home?region={region}#table?name={name}",
        "aws_sqs_queue": "https://{region}.{aws}/sqs/v3/home?region={region}#/queues/{url}",
        "aws_sns_topic": "https://{region}.{aws}/sns/v3/home?region={region}#/topic/{arn}",
        "aws_cloudwatch_log_group": "https://{region}.{aws}/cloudwatch/home?region={region}#logsV2:log-groups/log-group/{name}",
        "aws_ecr_repository": "https://{region}.{aws}/ecr/repositories?region={region}#{name}",
        "aws_iam_role": "https://console.{aws_root}/iam/home#/roles/{name}",
        "aws_iam_user": "https://console.{aws_root}/iam/home#/users/details/{name}",
        "aws_route53_zone": "https://console.{aws_root}/route53/v2/hostedzones#ListRecordSets/{zone_id}",
    }
)
"""Global services have no region in their address."""

_GOOGLE = "https://console.cloud.google.com"

GOOGLE: Mapping[str, str] = MappingProxyType(
    {
        "google_compute_instance": _GOOGLE + "/compute/instancesDetail/zones/{zone}/instances/{name}?project={project}",
        "google_compute_disk": _GOOGLE + "/compute/disksDetail/zones/{zone}/disks/{name}?project={project}",
        "google_compute_network": _GOOGLE + "/networking/networks/details/{name}?project={project}",
        "google_compute_subnetwork": _GOOGLE + "/networking/subnetworks/details/{region}/{name}?project={project}",
        "google_compute_firewall": _GOOGLE + "/networking/firewalls/details/{name}?project={project}",
        "google_compute_route": _GOOGLE + "/networking/routes/details/{name}?project={project}",
        "google_compute_router": _GOOGLE + "/hybrid/routers/details/{region}/{name}?project={project}",
        "google_compute_vpn_tunnel": _GOOGLE + "/hybrid/vpn/tunnels/details/{region}/{name}?project={project}",
        "google_compute_ha_vpn_gateway": _GOOGLE + "/hybrid/vpn/gateways/details/{region}/{name}?project={project}",
        "google_compute_address": _GOOGLE + "/networking/addresses/list?project={project}",
        "google_compute_global_address": _GOOGLE + "/networking/addresses/list?project={project}",
        "google_storage_bucket": _GOOGLE + "/storage/browser/{name}?project={project}",
        "google_container_cluster": _GOOGLE + "/kubernetes/clusters/details/{location}/{name}?project={project}",
        "google_sql_database_instance": _GOOGLE + "/sql/instances/{name}/overview?project={project}",
        "google_cloud_run_v2_service": _GOOGLE + "/run/detail/{location}/{name}?project={project}",
        "google_pubsub_topic": _GOOGLE + "/cloudpubsub/topic/detail/{name}?project={project}",
    }
)

_AZURE = "https://portal.azure.com/#resource"
_AZURE_ID = re.compile(r"^/subscriptions/[^/]+/resourceGroups/", re.IGNORECASE)

_CONSOLES = MappingProxyType({"aws": "aws.amazon.com", "aws-cn": "amazonaws.cn", "aws-us-gov": "amazonaws-us-gov.com"})
"""AWS's consoles by partition, the second field of every ARN."""


def console_links(instances: Iterable[Instance]) -> tuple[ConsoleLink, ...]:
    """A link for each resource that has one, titled by its address; some types share a page, listed once."""
    links: dict[str, ConsoleLink] = {}
    for instance in instances:
        url = console_url(instance.type, instance.attributes)
        if url:
            links.setdefault(url, ConsoleLink(instance.address, url))
    return tuple(links.values())


def console_url(type_: str, attributes: Mapping[str, Any]) -> str:
    """The console page of a resource; nothing when it has none or its attributes do not say enough."""
    if type_ in AWS:
        return _fill(AWS[type_], _aws_values(attributes))
    if type_ in GOOGLE:
        return _fill(GOOGLE[type_], _google_values(attributes))
    identity = str(attributes.get("id") or "")
    if type_.startswith("azurerm_") and _AZURE_ID.match(identity):
        return _AZURE + quote(identity, safe="/")
    return ""


def _aws_values(attributes: Mapping[str, Any]) -> dict[str, str]:
    values = _texts(attributes)
    arn = values.get("arn", "").split(":")
    partition, region = (arn[1], arn[3]) if len(arn) > 3 else ("aws", "")
    # An S3 bucket's ARN has no region, but the bucket has the attribute; so has everything from provider 6 on.
    region = values.get("region", "") or region
    root = _CONSOLES.get(partition, "")
    if not root:
        return {}
    values |= {"aws": f"console.{root}", "aws_root": root}
    if region:
        values["region"] = region
    return values


def _google_values(attributes: Mapping[str, Any]) -> dict[str, str]:
    # References to zones, regions and networks may be whole URLs.
    return {name: text.rpartition("/")[2] for name, text in _texts(attributes).items()}


def _texts(attributes: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in attributes.items() if isinstance(value, str) and value}


def _fill(pattern: str, values: Mapping[str, str]) -> str:
    names = re.findall(r"\{(\w+)\}", pattern)
    if any(name not in values for name in names):
        return ""
    return pattern.format(**{name: quote(values[name], safe="/" if name == "id" else ".") for name in names})
