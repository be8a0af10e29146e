"""The stand-in AWS: moto's server in this process, with addresses from the world's own prefixes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from ipaddress import IPv4Address, IPv4Network
from threading import Lock, Thread
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlencode

from skyspan.model.error import ToolMissingError
from skyspan.rehearsal.cloud import vpn
from skyspan.rehearsal.cloud.state import CloudRoute, CloudState, Instance, Permit, Subnet
from skyspan.rehearsal.spec import Rehearsal

Application: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

ACCOUNT_KEY = "rehearsal"
"""The access key and secret of everybody in the world: no real account has them."""

_SCOPE = re.compile(r"Credential=[^/,\s]+/\d+/([a-z0-9-]+)/ec2/")
_MOVES = re.compile(
    r"(Run|Start|Stop|Reboot|Terminate)Instances|(Associate|Disassociate|Release)Address|"
    r"(Create|Replace|Delete)Route|(Associate|Disassociate)RouteTable|ReplaceRouteTableAssociation|"
    r"(Create|Delete)(Tags|Subnet)|(Authorize|Revoke|Modify)SecurityGroup\w+|"
    r"Modify(Instance|NetworkInterface)Attribute|(Attach|Detach)(NetworkInterface|VpnGateway)|"
    r"(Create|Delete)VpnConnection(Route)?|ModifyVpnTunnelOptions|(En|Dis)ableVgwRoutePropagation"
)
"""Requests after which a namespace may have other addresses or routes."""

_KINDS = (
    ("describe_addresses", "Addresses", "AllocationId", "Elastic IP"),
    ("describe_customer_gateways", "CustomerGateways", "CustomerGatewayId", "customer gateway"),
    ("describe_internet_gateways", "InternetGateways", "InternetGatewayId", "internet gateway"),
    ("describe_key_pairs", "KeyPairs", "KeyPairId", "key pair"),
    ("describe_nat_gateways", "NatGateways", "NatGatewayId", "NAT gateway"),
    ("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId", "network interface"),
    ("describe_route_tables", "RouteTables", "RouteTableId", "route table"),
    ("describe_security_groups", "SecurityGroups", "GroupId", "security group"),
    ("describe_subnets", "Subnets", "SubnetId", "subnet"),
    ("describe_volumes", "Volumes", "VolumeId", "volume"),
    ("describe_vpcs", "Vpcs", "VpcId", "VPC"),
    ("describe_vpn_connections", "VpnConnections", "VpnConnectionId", "VPN connection"),
    ("describe_vpn_gateways", "VpnGateways", "VpnGatewayId", "VPN gateway"),
)
"""What a deployment may leave behind in EC2: call, list, id, and its name for people."""


class AwsServer:
    """moto's server on a loopback port, in threads of this process.

    Elastic IPs come from `pool`; `images` are offered besides moto's own. `moved` is called in a server thread after
    each request that may change addresses or routes, before the caller gets its answer: when Terraform knows an
    address, it works.
    """

    def __init__(self, pool: IPv4Network, moved: Callable[[], None], images: Sequence[Mapping[str, Any]] = ()) -> None:
        self._pool = pool
        self._images = images
        self._moved = moved
        self._lock = Lock()
        self._given: set[IPv4Address] = set()
        self._first: dict[str, Mapping[str, str]] = {}
        self._server: Any = None
        self._thread: Thread | None = None
        self._local = ""

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._local

    def start(self) -> None:
        """Listen; raises ToolMissingError without moto."""
        try:
            from moto.ec2.models import amis
            from moto.moto_server.werkzeug_app import DomainDispatcherApplication
            from werkzeug.serving import WSGIRequestHandler, make_server

            from skyspan.rehearsal.cloud import vpn_requests
        except ImportError as missing:
            raise ToolMissingError(
                "the stand-in AWS needs moto", detail=str(missing), hint='install it: pip install "skyspan[rehearsal]"'
            ) from missing

        # moto reads its list when a region is first used; its own setting for more would replace the list.
        amis.AMIS.extend(dict(image) for image in self._images)

        class Quiet(WSGIRequestHandler):
            """Says nothing about requests."""

            def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
                """Nothing."""

        self._server = make_server(
            "127.0.0.1",
            0,
            self._around(DomainDispatcherApplication(vpn_requests.applications(self._next_address))),
            threaded=True,
            request_handler=Quiet,
        )
        self._local = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and forget everything."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        if self._thread is not None:
            self._thread.join()

    def state(self) -> CloudState:
        """What matters to the networks, over all regions used so far. Blocks: for a thread."""
        states = [_region_state(self._client(region)) for region in tuple(self._first)]
        return CloudState(
            tuple(instance for state in states for instance in state.instances),
            {key: subnet for state in states for key, subnet in state.subnets.items()},
            tuple(one for state in states for one in state.vpns),
        )

    def leftovers(self) -> tuple[str, ...]:
        """Resources that were not there when their region was first used. Blocks: for a thread."""
        return tuple(
            f"{kind} {identity} in {region}"
            for region, before in self._first.items()
            for identity, kind in sorted(_resources(self._client(region)).items())
            if identity not in before
        )

    def _client(self, region: str) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "ec2",
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id=ACCOUNT_KEY,
            aws_secret_access_key=ACCOUNT_KEY,
            config=Config(proxies={}, retries={"max_attempts": 0}, user_agent_extra="skyspan-world"),
        )

    def _around(self, application: Application) -> Application:
        """`application` with addresses given by us, and `moved` called after what moves something."""

        def handle(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
            if scope is None or "skyspan-world" in environ.get("HTTP_USER_AGENT", ""):
                return application(environ, start_response)
            self._meet(scope.group(1))
            asked = parse_qs(_body(environ).decode(errors="replace"), keep_blank_values=True)
            action = asked.get("Action", [""])[0]
            if action == "AllocateAddress" and "Address" not in asked:
                _set_body(environ, urlencode({**asked, "Address": [str(self._next_address())]}, doseq=True).encode())
            answer = list(application(environ, start_response))
            if _MOVES.fullmatch(action):
                self._moved()
            return answer

        return handle

    def _meet(self, region: str) -> None:
        """Remember what a region holds by itself, before anything is made in it."""
        with self._lock:
            if region not in self._first:
                self._first[region] = _resources(self._client(region))

    def _next_address(self) -> IPv4Address:
        """The first free address of the pool, in the order of release and allocation as AWS: any that is free."""
        with self._lock:
            used = {address for region in self._first for address in _outside(self._client(region))}
            for address in self._pool.hosts():
                if address not in used and address not in self._given:
                    self._given.add(address)
                    return address
            self._given.clear()
            return next(address for address in self._pool.hosts() if address not in used)


def machine_images(rehearsal: Rehearsal) -> list[dict[str, Any]]:
    """The machine images that the section adds, in the form of moto's own list."""
    return [
        {
            "ami_id": f"ami-{number:017x}",
            "name": image.name,
            "description": image.name,
            "owner_id": image.owner,
            "architecture": image.architecture,
            "hypervisor": "xen",
            "image_type": "machine",
            "platform": None,
            "public": True,
            "root_device_name": "/dev/xvda",
            "root_device_type": "ebs",
            "sriov": "simple",
            "state": "available",
            "virtualization_type": "hvm",
            "creation_date": "2025-01-01T00:00:00.000Z",
        }
        for number, image in enumerate(rehearsal.aws.images if rehearsal.aws else (), start=1)
    ]


def _body(environ: dict[str, Any]) -> bytes:
    """The request's body, left readable for the application."""
    data: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    _set_body(environ, data)
    return data


def _set_body(environ: dict[str, Any], data: bytes) -> None:
    environ["wsgi.input"] = BytesIO(data)
    environ["CONTENT_LENGTH"] = str(len(data))


def _resources(client: Any) -> Mapping[str, str]:
    """Everything that exists, by id, with the name of its kind."""
    found = {
        item[key]: kind
        for call, items, key, kind in _KINDS
        for item in getattr(client, call)()[items]
        # The cloud goes on to describe for a while what was deleted.
        if item.get("State") != "deleted"
    }
    # moto keeps the interfaces of an instance that it terminated; AWS deletes them with it.
    for interface in client.describe_network_interfaces()["NetworkInterfaces"]:
        if interface.get("SubnetId") not in found or _terminated(client, interface):
            found.pop(interface["NetworkInterfaceId"], None)
    return found | {
        instance["InstanceId"]: "instance"
        for instance in _instances(client)
        if instance["State"]["Name"] != "terminated"
    }


def _terminated(client: Any, interface: Any) -> bool:
    """Whether the interface was that of an instance which is no more."""
    owner = interface.get("Attachment", {}).get("InstanceId")
    return any(one["InstanceId"] == owner and one["State"]["Name"] == "terminated" for one in _instances(client))


def _instances(client: Any) -> list[Any]:
    return [one for page in client.describe_instances()["Reservations"] for one in page["Instances"]]


def _region_state(client: Any) -> CloudState:
    running = [one for one in _instances(client) if one["State"]["Name"] in ("pending", "running")]
    elastic = {
        address["InstanceId"]: IPv4Address(address["PublicIp"])
        for address in client.describe_addresses()["Addresses"]
        if address.get("InstanceId")
    }
    permits = {
        group["GroupId"]: tuple(_permits(group)) for group in client.describe_security_groups()["SecurityGroups"]
    }
    used = {one.get("SubnetId", "") for one in running}
    interfaces = {nic["NetworkInterfaceId"]: one["InstanceId"] for one in running for nic in one["NetworkInterfaces"]}
    vpns = _vpns(client)
    return CloudState(
        tuple(_instance(one, elastic, permits) for one in running), _subnets(client, used, interfaces, vpns), vpns
    )


def _vpns(client: Any) -> tuple[vpn.Vpn, ...]:
    return vpn.of_account(
        client.describe_vpn_connections()["VpnConnections"],
        client.describe_customer_gateways()["CustomerGateways"],
        client.describe_vpn_gateways()["VpnGateways"],
        {one["VpcId"]: IPv4Network(one["CidrBlock"]) for one in client.describe_vpcs()["Vpcs"]},
    )


def _outside(client: Any) -> Iterable[IPv4Address]:
    """The public addresses in use: Elastic IPs, and the ends of VPN connections."""
    yield from (IPv4Address(address["PublicIp"]) for address in client.describe_addresses()["Addresses"])
    yield from (address for one in _vpns(client) for address in one.outside)


def _instance(one: Any, elastic: Mapping[str, IPv4Address], permits: Mapping[str, tuple[Permit, ...]]) -> Instance:
    return Instance(
        id=one["InstanceId"],
        tags={tag["Key"]: tag["Value"] for tag in one.get("Tags", [])},
        subnet=one.get("SubnetId", ""),
        private=IPv4Address(one["PrivateIpAddress"]),
        elastic=elastic.get(one["InstanceId"]),
        forwards=not one.get("SourceDestCheck", True),
        permits=tuple(permit for group in one["SecurityGroups"] for permit in permits.get(group["GroupId"], ())),
    )


def _permits(group: Any) -> Iterable[Permit]:
    """The ingress rules by prefix; rules that name another group do not concern what comes from outside."""
    for rule in group["IpPermissions"]:
        for source in rule.get("IpRanges", []):
            first, last = rule.get("FromPort", 0), rule.get("ToPort", 65535)
            every = first < 0 or last < 0
            yield Permit(
                rule["IpProtocol"], 0 if every else first, 65535 if every else last, IPv4Network(source["CidrIp"])
            )


def _subnets(
    client: Any, used: set[str], interfaces: Mapping[str, str], vpns: Sequence[vpn.Vpn]
) -> Mapping[str, Subnet]:
    """The subnets of every VPC in use, with the route table of each: its own, else the VPC's main one."""
    subnets = client.describe_subnets()["Subnets"]
    prefixes = {vpc["VpcId"]: IPv4Network(vpc["CidrBlock"]) for vpc in client.describe_vpcs()["Vpcs"]}
    attached = {one.vpc for one in vpns}
    in_use = {subnet["VpcId"] for subnet in subnets if subnet["SubnetId"] in used}
    in_use |= {identity for identity, prefix in prefixes.items() if prefix in attached}
    tables: dict[str, Any] = {}
    for table in client.describe_route_tables()["RouteTables"]:
        for association in table["Associations"]:
            tables[table["VpcId"] if association.get("Main") else association.get("SubnetId", "")] = table
    found = {}
    for subnet in subnets:
        if subnet["VpcId"] in in_use:
            table = tables.get(subnet["SubnetId"], tables.get(subnet["VpcId"], {}))
            found[subnet["SubnetId"]] = Subnet(
                subnet["SubnetId"],
                IPv4Network(subnet["CidrBlock"]),
                prefixes[subnet["VpcId"]],
                tuple(_routes(table, interfaces)),
                tuple(one["GatewayId"] for one in table.get("PropagatingVgws", ())),
            )
    return found


def _routes(table: Any, interfaces: Mapping[str, str]) -> Iterable[CloudRoute]:
    for route in table.get("Routes", []):
        target = route.get("InstanceId") or interfaces.get(route.get("NetworkInterfaceId", ""), "")
        if route.get("GatewayId", "").startswith("vgw-"):
            target = route["GatewayId"]
        if target and route.get("DestinationCidrBlock"):
            yield CloudRoute(IPv4Network(route["DestinationCidrBlock"]), target)
