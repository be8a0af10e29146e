"""The settings of a check stage."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from skyspan.contracts.provider import Spec
from skyspan.model.composition import Seconds
from skyspan.providers.http.expect import Expectation

KINDS = ("icmp", "tcp", "http", "dns")

DNS_PORT = 53


def endpoint(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Address and port of `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`; raises ValueError."""
    if default_port is not None and (":" not in text or _is_ip(text)):
        return text, default_port
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        port = rest.removeprefix(":") if bracket and rest.startswith(":") else ""
    else:
        address, _, port = text.rpartition(":")
    if not address or not port.isdecimal() or not 0 < int(port) < 65536 or (":" in address and text[0] != "["):
        msg = f"{text!r} is no endpoint: write address:port, an IPv6 address in brackets"
        raise ValueError(msg)
    return address, int(port)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _status(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Wanted: TypeAlias = Annotated[Expectation | tuple[str, ...] | str | None, BeforeValidator(_status)]


class Leg(Spec):
    """One thing to reach: exactly one of `icmp`, `tcp`, `http`, `dns`."""

    icmp: str | None = None
    """Address that must answer pings."""
    tcp: str | None = None
    """Endpoint (`address:port`) that must accept connections."""
    http: str | None = None
    """Address (http:// or https://) that must answer a GET; redirects are not followed."""
    dns: str | None = None
    """Name that must resolve."""
    server: str | None = None
    """Name server to ask (`address` or `address:port`), for `dns`; default: what the place itself is set to ask."""
    expect: Wanted = None
    """For `http`: a status, or an object with `status`, `json`, `contains` (default: any 2xx). For `dns`: addresses
    that must be among the answers."""
    verify: bool = True
    """For https: whether the server's certificate must be trusted here."""
    timeout: Seconds = 5.0
    """Deadline of one try."""
    retry_for: Seconds | None = None
    """While applying, try again until it passes or this time is over; default: as given for the stage."""
    refused: bool = False
    """The leg passes when the target can NOT be reached: for ports that must be closed."""
    count: int = Field(default=1, ge=1, le=100)
    """How many pings; one answer is enough."""

    @model_validator(mode="after")
    def _one_kind(self) -> Leg:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            msg = f"a check names exactly one of {', '.join(KINDS)}"
            raise ValueError(msg)
        kind = given[0]
        _check_target(kind, self)
        for option, owners in (("server", ("dns",)), ("expect", ("http", "dns"))):
            if getattr(self, option) is not None and kind not in owners:
                msg = f"{option!r} has no meaning for {kind}"
                raise ValueError(msg)
        if kind == "dns" and isinstance(self.expect, Expectation):
            msg = "`expect` of a dns check is an address or a list of addresses"
            raise ValueError(msg)
        if kind == "http":
            self.wanted_answer()
        return self

    @property
    def kind(self) -> str:
        """Which of the four it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def target(self) -> str:
        """What it wants to reach, as written."""
        return str(getattr(self, self.kind))

    def wanted_answer(self) -> Expectation:
        """`expect` of an http check, however it was written."""
        if isinstance(self.expect, Expectation):
            return self.expect
        return Expectation() if self.expect is None else Expectation.model_validate({"status": self.expect})

    def wanted_addresses(self) -> tuple[str, ...]:
        """`expect` of a dns check, however it was written."""
        if self.expect is None or isinstance(self.expect, Expectation):
            return ()
        given = (self.expect,) if isinstance(self.expect, str) else self.expect
        return tuple(str(ipaddress.ip_address(address)) for address in given)


def _check_target(kind: str, leg: Leg) -> None:
    if kind == "tcp":
        endpoint(leg.target)
    elif kind == "http":
        parts = urlsplit(leg.target)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            msg = f"{leg.target!r} is no http:// or https:// address"
            raise ValueError(msg)
        if any(char in leg.target for char in " \r\n\t") or not leg.target.isascii():
            msg = f"{leg.target!r} is no address: it holds spaces or letters that must be quoted"
            raise ValueError(msg)
    elif leg.target.startswith("-") or not leg.target or any(char.isspace() for char in leg.target):
        msg = f"{leg.target!r} is no address or name"
        raise ValueError(msg)
    if kind == "dns":
        leg.wanted_addresses()
        if leg.server is not None:
            endpoint(leg.server, DNS_PORT)


class CheckSpec(Spec):
    """Who must reach what, and who must not."""

    from_: str | None = Field(default=None, alias="from")
    """The host of the composition to check from; default: here."""
    checks: tuple[Leg, ...] = Field(min_length=1)
    """What to reach; all are tried at once."""
    retry_for: Seconds | None = None
    """While applying, how long each failing check is tried again; default: not at all."""
