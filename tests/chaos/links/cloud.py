"""Makes a VPC with a VPN connection and an application in the stand-in AWS, and the composition that links a lab to it.

It is what examples/aws-vpn makes with OpenTofu, whose provider waits twenty seconds for what stands at once here.
"""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import boto3
from tests.chaos.links.measuring import until
from tests.chaos.links.stand_ins import StandIns

ADDRESS = "hostname -I | cut -d' ' -f1"
"""What says the application's address in the VPC."""

_VPC, _LAB, _ASN = "10.30.0.0/16", "192.168.77.0/24", 65000

_COMPOSITION = """\
skyspan: 1
name: aws-vpn
inputs:
  lab_endpoint: {{type: ip}}
  ssh_public_key: {{type: public_key}}
hosts:
  lab-gw: {{address: "${{{{ inputs.lab_endpoint }}}}", key: "${{{{ secrets.ssh_key }}}}"}}
stages:
  link:
    uses: aws-vpn
    with:
      host: lab-gw
      facts: {facts}
      prefixes: [{lab}]
      remote: [{vpc}]
      bgp: {{asn: {asn}}}
      allow: [icmp, tcp/8080]
"""


def made(world: StandIns) -> str:
    """Make all of it; the composition."""

    ec2 = boto3.client("ec2", region_name="eu-west-1")
    vpc = ec2.create_vpc(CidrBlock=_VPC)["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.30.1.0/24")["Subnet"]["SubnetId"]
    gateway = ec2.create_vpn_gateway(Type="ipsec.1")["VpnGateway"]["VpnGatewayId"]
    ec2.attach_vpn_gateway(VpcId=vpc, VpnGatewayId=gateway)
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.enable_vgw_route_propagation(GatewayId=gateway, RouteTableId=table)
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    group = ec2.create_security_group(GroupName="app", Description="app", VpcId=vpc)["GroupId"]
    everybody = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": _LAB}, {"CidrIp": _VPC}]}]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=everybody)
    image = ec2.describe_images(Filters=[{"Name": "name", "Values": ["debian-12-amd64-*"]}])["Images"][0]["ImageId"]
    ec2.run_instances(
        ImageId=image, MinCount=1, MaxCount=1, SubnetId=subnet, SecurityGroupIds=[group], **_named("instance", "app")
    )
    customer = ec2.create_customer_gateway(BgpAsn=_ASN, IpAddress="203.0.113.10", Type="ipsec.1")["CustomerGateway"]
    connection = ec2.create_vpn_connection(
        CustomerGatewayId=customer["CustomerGatewayId"],
        Type="ipsec.1",
        VpnGatewayId=gateway,
        **_named("vpn-connection", "lab"),
    )["VpnConnection"]
    until("the VPC's ends stand", lambda: world.on("app", ADDRESS).startswith("10.30.") and world.pids("vpn", "charon"))
    facts = json.dumps(_facts(connection["CustomerGatewayConfiguration"]))
    return _COMPOSITION.format(facts=facts, lab=_LAB, vpc=_VPC, asn=_ASN)


def _named(kind: str, name: str) -> dict[str, Any]:
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": [{"Key": "Name", "Value": name}]}]}


def _facts(configuration: str) -> dict[str, str]:
    """What Terraform's aws_vpn_connection takes from CustomerGatewayConfiguration, by its names."""
    facts = {}
    for number, tunnel in enumerate(ElementTree.fromstring(configuration).iter("ipsec_tunnel"), 1):
        for name, place in {
            "address": "vpn_gateway/tunnel_outside_address/ip_address",
            "preshared_key": "ike/pre_shared_key",
            "cgw_inside_address": "customer_gateway/tunnel_inside_address/ip_address",
            "vgw_inside_address": "vpn_gateway/tunnel_inside_address/ip_address",
            "bgp_asn": "vpn_gateway/bgp/asn",
            "bgp_holdtime": "vpn_gateway/bgp/hold_time",
        }.items():
            facts[f"tunnel{number}_{name}"] = tunnel.findtext(place, "")
    return facts
