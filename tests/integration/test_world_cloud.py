"""The stand-in AWS: its addresses come from the world, and the namespaces follow what it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.ec2.responses import EC2Response
from moto.ec2.urls import url_paths

from skyspan.rehearsal.cloud.server import AwsServer

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

POOL = IPv4Network("198.51.100.128/29")


@pytest.fixture
def server() -> Iterator[AwsServer]:
    moves: list[None] = []
    running = AwsServer(POOL, lambda: moves.append(None), [])
    running.start()
    yield running
    running.stop()


def client(url: str, region: str) -> Any:
    return boto3.client(
        "ec2",
        region_name=region,
        endpoint_url=url,
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"max_attempts": 0}),
    )


# moto keeps its accounts for as long as the process lives, so each test has a region of its own.


def test_elastic_ips_come_from_the_pool_and_are_used_again(server: AwsServer) -> None:
    ec2 = client(server.url, "eu-west-1")
    got = [ec2.allocate_address() for _ in range(6)]
    assert {one["PublicIp"] for one in got} == {str(address) for address in POOL.hosts()}
    ec2.release_address(AllocationId=got[2]["AllocationId"])
    assert ec2.allocate_address()["PublicIp"] == got[2]["PublicIp"]


def test_what_was_there_from_the_start_is_no_leftover(server: AwsServer) -> None:
    ec2 = client(server.url, "eu-west-2")
    ec2.describe_vpcs()
    assert server.leftovers() == ()
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    assert any(vpc in item for item in server.leftovers())
    ec2.delete_vpc(VpcId=vpc)
    assert server.leftovers() == ()


def test_a_terminated_instance_is_no_leftover(server: AwsServer) -> None:
    ec2 = client(server.url, "eu-west-3")
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    image = ec2.describe_images()["Images"][0]["ImageId"]
    (one,) = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, SubnetId=subnet)["Instances"]
    assert any("instance" in item for item in server.leftovers())
    (seen,) = server.state().instances
    assert (seen.id, str(seen.private), seen.forwards) == (one["InstanceId"], one["PrivateIpAddress"], False)
    ec2.modify_instance_attribute(InstanceId=one["InstanceId"], SourceDestCheck={"Value": False})
    assert server.state().instances[0].forwards
    ec2.terminate_instances(InstanceIds=[one["InstanceId"]])
    assert server.state().instances == ()
    assert server.leftovers() == ()


def test_a_vpn_connection_has_the_keys_and_addresses_of_the_request_and_its_own_where_it_names_none(
    server: AwsServer,
) -> None:
    ec2 = client(server.url, "eu-central-1")
    vpc = ec2.create_vpc(CidrBlock="10.30.0.0/16")["Vpc"]["VpcId"]
    customer = ec2.create_customer_gateway(Type="ipsec.1", PublicIp="203.0.113.10", BgpAsn=65000)["CustomerGateway"]
    gateway = ec2.create_vpn_gateway(Type="ipsec.1")["VpnGateway"]
    assert gateway["AmazonSideAsn"] == 64512
    assert url_paths["{0}/"] == EC2Response.dispatch, "other servers of this process answer as ever"
    ec2.attach_vpn_gateway(VpcId=vpc, VpnGatewayId=gateway["VpnGatewayId"])
    ends = {"VpnGatewayId": gateway["VpnGatewayId"], "CustomerGatewayId": customer["CustomerGatewayId"]}

    def ask(options: dict[str, Any]) -> Any:
        return ec2.create_vpn_connection(Type="ipsec.1", Options=options, **ends)["VpnConnection"]

    for wrong, fault in (
        ({"PreSharedKey": "0123456789"}, "cannot start with zero"),
        ({"TunnelInsideCidr": "169.254.169.252/30"}, "reserved"),
    ):
        with pytest.raises(ClientError, match=fault) as refused:
            ask({"TunnelOptions": [wrong]})
        assert "0123456789" not in str(refused.value)
    wanted = {"PreSharedKey": "chosen.by_us", "TunnelInsideCidr": "169.254.77.4/30", "StartupAction": "add"}
    made = ask({"TunnelOptions": [wanted]})
    one, other = made["Options"]["TunnelOptions"]
    assert {name: one[name] for name in wanted} == wanted
    assert len(other["PreSharedKey"]) == 32
    assert IPv4Network(other["TunnelInsideCidr"]).prefixlen == 30
    assert {one["OutsideIpAddress"], other["OutsideIpAddress"]} <= {str(address) for address in POOL.hosts()}
    with pytest.raises(ClientError, match="used already"):
        ask({"TunnelOptions": [{"TunnelInsideCidr": "169.254.77.4/30"}]})
    identity = {"VpnConnectionId": made["VpnConnectionId"]}
    with pytest.raises(ClientError, match="dynamic routing"):
        ec2.create_vpn_connection_route(DestinationCidrBlock="10.1.0.0/24", **identity)
    changed = {"PreSharedKey": "rotated.by_us"}
    ec2.modify_vpn_tunnel_options(VpnTunnelOutsideIpAddress=one["OutsideIpAddress"], TunnelOptions=changed, **identity)
    (told,) = ec2.describe_vpn_connections()["VpnConnections"]
    assert "<pre_shared_key>rotated.by_us</pre_shared_key>" in told["CustomerGatewayConfiguration"]
    (seen,) = server.state().vpns
    assert [tunnel.key for tunnel in seen.tunnels] == ["rotated.by_us", other["PreSharedKey"]]
    assert (str(seen.customer), str(seen.vpc), seen.static) == ("203.0.113.10", "10.30.0.0/16", False)

    static = ask({"StaticRoutesOnly": True})
    route = {"VpnConnectionId": static["VpnConnectionId"], "DestinationCidrBlock": "10.1.0.0/24"}
    ec2.create_vpn_connection_route(**route)
    found = ec2.describe_vpn_connections(Filters=[{"Name": "route.destination-cidr-block", "Values": ["10.1.0.0/24"]}])
    assert [item["VpnConnectionId"] for item in found["VpnConnections"]] == [static["VpnConnectionId"]]
    assert len({address for item in server.state().vpns for address in item.outside}) == 4
    ec2.delete_vpn_connection_route(**route)
    with pytest.raises(ClientError, match="no route"):
        ec2.delete_vpn_connection_route(**route)
    assert len([item for item in server.leftovers() if "VPN" in item or "customer" in item]) == 4
    for connection in (made, static):
        ec2.delete_vpn_connection(VpnConnectionId=connection["VpnConnectionId"])
    ec2.delete_customer_gateway(CustomerGatewayId=customer["CustomerGatewayId"])
    ec2.detach_vpn_gateway(VpcId=vpc, VpnGatewayId=gateway["VpnGatewayId"])
    ec2.delete_vpn_gateway(VpnGatewayId=gateway["VpnGatewayId"])
    ec2.delete_vpc(VpcId=vpc)
    assert server.leftovers() == ()
    assert server.state().vpns == ()


ACT = """
import boto3, json, os, subprocess, sys, time
ec2 = boto3.client("ec2", region_name="eu-north-1")
vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
subnets = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.20.{n}.0/24")["Subnet"]["SubnetId"] for n in (1, 2)]
group = ec2.create_security_group(GroupName="g", Description="g", VpcId=vpc)["GroupId"]
image = ec2.describe_images()["Images"][0]["ImageId"]
ids = []
for name, subnet in zip(("cloud-gw", "app"), subnets):
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}]
    made = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, SubnetId=subnet, SecurityGroupIds=[group],
                             TagSpecifications=tags)["Instances"][0]
    ids.append(made["InstanceId"]); private = made["PrivateIpAddress"]
gateway, app = ids
def on(host, *argv): return subprocess.run(["ip", "netns", "exec", host, *argv], capture_output=True, text=True)
def reach(host, address): return on(host, "ping", "-c1", "-W1", address).returncode == 0
found = {}
eip = ec2.allocate_address(Domain="vpc")
found["before"] = reach("lab-gw", eip["PublicIp"])
ec2.associate_address(InstanceId=gateway, AllocationId=eip["AllocationId"])
found["closed"] = reach("lab-gw", eip["PublicIp"])
permit = [{"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "IpRanges": [{"CidrIp": "203.0.113.0/24"}]}]
ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=permit)
found["open"] = reach("lab-gw", eip["PublicIp"])
found["elsewhere"] = reach("control", eip["PublicIp"])
found["known"] = eip["PublicIp"] in open(os.environ["SKYSPAN_KNOWN_HOSTS"]).read()
found["named"] = eip["PublicIp"] in subprocess.check_output(["getent", "hosts", "cloud-gw"], text=True)
found["inside"] = reach("cloud-gw", private)
subprocess.run([sys.executable, "-m", "skyspan.rehearsal", "fault", "reboot", "cloud-gw"], check=True, stdout=2)
found["rebooted"] = reach("lab-gw", eip["PublicIp"]) and reach("cloud-gw", private)
# the way to the lab: nothing without a route, a black hole until the gateway forwards, then through it
table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
ec2.associate_route_table(RouteTableId=table, SubnetId=subnets[1])
on("cloud-gw", "ip", "addr", "add", "192.168.99.1/32", "dev", "lo")
found["no route"] = reach("app", "192.168.99.1")
ec2.create_route(RouteTableId=table, DestinationCidrBlock="192.168.99.0/24", InstanceId=gateway)
found["checked"] = reach("app", "192.168.99.1")
ec2.modify_instance_attribute(InstanceId=gateway, SourceDestCheck={"Value": False})
found["forwarded"] = reach("app", "192.168.99.1")
ec2.disassociate_address(PublicIp=eip["PublicIp"])
found["taken away"] = eip["PublicIp"] not in on("cloud-gw", "ip", "addr").stdout
ec2.terminate_instances(InstanceIds=ids)
found["gone"] = "10.20." not in on("app", "ip", "addr").stdout
# the cloud's end of a VPN: it listens as soon as it is promised, also after a reboot, and leaves nothing
customer = ec2.create_customer_gateway(Type="ipsec.1", PublicIp="203.0.113.10", BgpAsn=65000)["CustomerGateway"]
vgw = ec2.create_vpn_gateway(Type="ipsec.1")["VpnGateway"]["VpnGatewayId"]
ec2.attach_vpn_gateway(VpcId=vpc, VpnGatewayId=vgw)
tags = [{"ResourceType": "vpn-connection", "Tags": [{"Key": "Name", "Value": "lab"}]}]
options = {"StaticRoutesOnly": True}
vpn = ec2.create_vpn_connection(Type="ipsec.1", VpnGatewayId=vgw, CustomerGatewayId=customer["CustomerGatewayId"],
                                TagSpecifications=tags, Options=options)["VpnConnection"]
outside = [one["OutsideIpAddress"] for one in vpn["Options"]["TunnelOptions"]]
def listens(): return " 0.0.0.0:500 " in on("vpn", "ss", "-Huln").stdout
def ways(): return on("vpn", "ip", "route", "show", "table", "210").stdout
found["vpn listens"] = listens()
found["vpn known"] = all(address in on("vpn", "ip", "addr").stdout for address in outside)
found["vpn inside"] = "10.20.1.3/24" in on("vpn", "ip", "addr").stdout
found["vpn knows what nobody told"] = bool(ways())
route = {"VpnConnectionId": vpn["VpnConnectionId"], "DestinationCidrBlock": "192.168.98.0/24"}
ec2.create_vpn_connection_route(**route)
for _ in range(100):
    if "192.168.98.0/24" in ways(): break
    time.sleep(0.05)
found["vpn routes"] = "192.168.98.0/24" in ways()
found["vpn answers strangers"] = reach("lab-gw", outside[0])
subprocess.run([sys.executable, "-m", "skyspan.rehearsal", "fault", "reboot", "vpn"], check=True, stdout=2)
found["vpn rebooted"] = listens()
ec2.delete_vpn_connection(VpnConnectionId=vpn["VpnConnectionId"])
found["vpn left behind"] = bool(listens() or ways() or "198.51.100" in on("vpn", "ip", "addr").stdout)
print(json.dumps(found))
"""


def test_namespaces_have_what_the_cloud_promises_when_it_answers(tmp_path: Path) -> None:
    section = {
        "sites": {"cloud": {"prefix": "198.51.100.0/24"}, "lab": {"prefix": "203.0.113.0/24"}},
        "aws": {"site": "cloud"},
        "hosts": {
            "cloud-gw": {"site": "cloud", "forwards": True, "stands_for": {"aws_instance": {"Name": "cloud-gw"}}},
            "app": {"stands_for": {"aws_instance": {"Name": "app"}}},
            "lab-gw": {"site": "lab", "address": "203.0.113.10"},
            "vpn": {"site": "cloud", "stands_for": {"aws_vpn_connection": {"Name": "lab"}}},
        },
    }
    stages = {"one": {"uses": "command", "with": {"run": "true"}}}
    text = json.dumps({"skyspan": 1, "name": "world", "stages": stages, "rehearsal": section})
    (tmp_path / "skyspan.yaml").write_text(text)
    argv = [sys.executable, "-m", "skyspan", "rehearse", "exec", "-f", str(tmp_path), "--", sys.executable, "-c", ACT]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=180, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name for name, value in found.items() if value} == {
        *("open", "known", "named", "inside", "rebooted", "forwarded", "taken away", "gone"),
        *("vpn listens", "vpn known", "vpn inside", "vpn routes", "vpn rebooted"),
    }
