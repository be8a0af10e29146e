"""What moto lacks of site-to-site VPN: tunnels with keys and addresses of their own, static routes, propagation.

Imports moto, so it is imported only when the stand-in AWS starts.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType
from typing import Any

import moto.ec2.urls
from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.vpn_connections import VPNConnection
from moto.ec2.responses import EC2Response
from moto.moto_server.werkzeug_app import create_backend_app

from skyspan.rehearsal.cloud import vpn

_LETTERS = string.ascii_letters + string.digits + "._"


class Connection(VPNConnection):
    """A connection with two tunnels. `options` is the form in which it is described."""

    options: Any
    routes: list[dict[str, str]]

    @classmethod
    def out_of(cls, plain: VPNConnection, options: dict[str, Any]) -> Connection:
        """Moto's own one, with what it lacks."""
        plain.__class__ = cls
        assert isinstance(plain, cls)
        plain.options, plain.routes = options, []
        return plain

    @property
    def insides(self) -> tuple[IPv4Network, ...]:
        """The inside networks."""
        return tuple(vpn.tunnel_of(one).inside for one in self.options["TunnelOptions"])

    @property
    def customer_gateway_configuration(self) -> str:
        """All that a customer gateway has to know, as a document."""
        customer = self.ec2_backend.get_customer_gateway(self.customer_gateway_id)
        gateway = self.ec2_backend.get_vpn_gateway(self.vpn_gateway_id)
        return vpn.configuration(
            vpn.Vpn(
                id=self.id,
                tags={},
                gateway=gateway.id,
                customer=IPv4Address(customer.ip_address),
                customer_asn=int(customer.bgp_asn),
                asn=int(gateway.amazon_side_asn),
                tunnels=tuple(map(vpn.tunnel_of, self.options["TunnelOptions"])),
                static=bool(self.options.get("StaticRoutesOnly")),
            )
        )

    def get_filter_value(self, filter_name: str, method_name: str | None = None) -> Any:
        """Filters that moto does not know."""
        if filter_name == "vpn-connection-id":
            return self.id
        if filter_name == "route.destination-cidr-block":
            return [route["DestinationCidrBlock"] for route in self.routes]
        return super().get_filter_value(filter_name, method_name)


class VpnResponse(EC2Response):
    """Moto's EC2, with the requests about VPN connections answered by the rules of AWS.

    `next_address` gives an outside address that nobody has.
    """

    next_address: Callable[[], IPv4Address]

    def create_vpn_gateway(self) -> ActionResult:
        """As moto, with the autonomous system that AWS gives by itself."""
        answer = super().create_vpn_gateway()
        gateway: Any = answer.result
        made = gateway["VpnGateway"]
        made.amazon_side_asn = str(made.amazon_side_asn or vpn.DEFAULT_ASN)
        return answer

    def create_vpn_connection(self) -> ActionResult:
        """A connection whose addresses and keys are those of the request, chosen where it names none."""
        request = {name: self._get_param(name) for name in ("VpnGatewayId", "TransitGatewayId", "Options")}
        request["Options"] = _plain(request["Options"] or {})
        gateway, options = request["VpnGatewayId"], request["Options"]
        for code, fault in (
            ("UnsupportedOperation", vpn.unsupported(request)),
            ("InvalidParameterValue", vpn.refusal(options, self._insides(gateway))),
        ):
            if fault:
                raise EC2ClientError(code, fault)
        self.ec2_backend.get_vpn_gateway(gateway)
        customer = self.ec2_backend.get_customer_gateway(self._get_param("CustomerGatewayId"))
        if not customer.ip_address:
            raise EC2ClientError("UnsupportedOperation", "a rehearsal's customer gateway has a fixed ip_address")
        tunnels = self._tunnels(gateway, options)
        answer = super().create_vpn_connection()
        found: Any = answer.result
        Connection.out_of(found["VpnConnection"], {**_DEFAULTS, **options, "TunnelOptions": tunnels})
        return answer

    def _tunnels(self, gateway: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Both tunnels' options, with what AWS chooses."""
        given = [*(options.get("TunnelOptions") or ()), {}, {}][:2]
        tunnels: list[dict[str, Any]] = []
        used = [*self._insides(gateway), *(IPv4Network(one["TunnelInsideCidr"]) for one in given if _INSIDE in one)]
        # Clients that cannot tell both apart otherwise take the lower outside address as that of the first.
        for one, outside in zip(given, sorted(type(self).next_address() for _ in range(2)), strict=True):
            inside = one.get(_INSIDE) or str(vpn.free_inside(_numbers(), used))
            used.append(IPv4Network(inside))
            tunnels.append({"PreSharedKey": _new_key(), **one, _INSIDE: inside, "OutsideIpAddress": str(outside)})
        return tunnels

    def modify_vpn_tunnel_options(self) -> ActionResult:
        """Other options for one tunnel, such as another key."""
        connection, changed = self._connection(), _plain(self._get_param("TunnelOptions") or {})
        outside = self._get_param("VpnTunnelOutsideIpAddress")
        tunnel = next((one for one in connection.options["TunnelOptions"] if one["OutsideIpAddress"] == outside), None)
        if tunnel is None:
            raise EC2ClientError("InvalidParameterValue", f"{connection.id} has no tunnel with the address {outside}")
        others = [net for net in self._insides(str(connection.vpn_gateway_id)) if str(net) != tunnel[_INSIDE]]
        fault = vpn.tunnel_refusal(changed, others)
        if fault:
            raise EC2ClientError("InvalidParameterValue", fault)
        tunnel.update(changed)
        return ActionResult({"VpnConnection": connection})

    def create_vpn_connection_route(self) -> ActionResult:
        """A network behind the customer gateway, for a connection without BGP."""
        connection, prefix = self._connection(), self._get_param("DestinationCidrBlock")
        if not connection.options.get("StaticRoutesOnly"):
            raise EC2ClientError(
                "InvalidParameterCombination", "The VPN connection uses dynamic routing: it takes no static routes"
            )
        if prefix not in connection.get_filter_value("route.destination-cidr-block"):
            connection.routes.append({"DestinationCidrBlock": prefix, "Source": "Static", "State": "available"})
        return EmptyResult()

    def delete_vpn_connection_route(self) -> ActionResult:
        """It is no longer behind it."""
        connection, prefix = self._connection(), self._get_param("DestinationCidrBlock")
        if prefix not in connection.get_filter_value("route.destination-cidr-block"):
            raise EC2ClientError("InvalidRoute.NotFound", f"{connection.id} has no route to {prefix}")
        connection.routes = [route for route in connection.routes if route["DestinationCidrBlock"] != prefix]
        return EmptyResult()

    def enable_vgw_route_propagation(self) -> ActionResult:
        """A route table follows what a VPN gateway knows."""
        table, gateway = self._propagation()
        table.propagating_vgws = [*_without(table, gateway), {"GatewayId": gateway}]
        return EmptyResult()

    def disable_vgw_route_propagation(self) -> ActionResult:
        """It no longer does."""
        table, gateway = self._propagation()
        table.propagating_vgws = _without(table, gateway)
        return EmptyResult()

    def _propagation(self) -> tuple[Any, str]:
        gateway = self._get_param("GatewayId")
        self.ec2_backend.get_vpn_gateway(gateway)
        return self.ec2_backend.get_route_table(self._get_param("RouteTableId")), gateway

    def _connection(self) -> Connection:
        (found,) = self.ec2_backend.describe_vpn_connections([self._get_param("VpnConnectionId")])
        assert isinstance(found, Connection), "each was made here"
        return found

    def _insides(self, gateway: str) -> tuple[IPv4Network, ...]:
        """The inside networks of a gateway's connections."""
        return tuple(
            inside
            for one in self.ec2_backend.vpn_connections.values()
            if isinstance(one, Connection) and one.vpn_gateway_id == gateway and one.state != "deleted"
            for inside in one.insides
        )


def applications(next_address: Callable[[], IPv4Address]) -> Callable[[Any], Any]:
    """Moto's way to make the application of a service, with an EC2 that answers by these rules."""

    class Response(VpnResponse):
        """With the addresses of this world."""

    Response.next_address = staticmethod(next_address)

    def make(service: Any) -> Any:
        # An application takes its handlers from there when it is made; other servers of this process keep theirs.
        paths = moto.ec2.urls.url_paths
        plain = dict(paths)
        paths["{0}/"] = Response.dispatch
        try:
            return create_backend_app(service)
        finally:
            paths.update(plain)

    return make


_INSIDE = "TunnelInsideCidr"

_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "EnableAcceleration": False,
        "StaticRoutesOnly": False,
        "LocalIpv4NetworkCidr": "0.0.0.0/0",
        "RemoteIpv4NetworkCidr": "0.0.0.0/0",
        "OutsideIpAddressType": "PublicIpv4",
        "TunnelInsideIpVersion": "ipv4",
    }
)


def _plain(value: Any) -> Any:
    """What moto parsed, as plain dictionaries and lists."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in dict(value).items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _without(table: Any, gateway: str) -> list[dict[str, str]]:
    return [one for one in getattr(table, "propagating_vgws", ()) if one["GatewayId"] != gateway]


def _new_key() -> str:
    return secrets.choice(string.ascii_letters) + "".join(secrets.choice(_LETTERS) for _ in range(31))


def _numbers() -> Iterator[int]:
    while True:
        yield secrets.randbelow(1 << 14)
