"""Addresses and prefixes as people write them in settings: checked, and said in words what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from skyspan.networks.addressing import INTERFACE_LENGTH, Network

_DEVICE = re.compile(rf"[A-Za-z0-9_.:@-]{{1,{INTERFACE_LENGTH}}}")


def checked(check: Callable[[str], object]) -> AfterValidator:
    """A text that `check` takes; what it raises as ValueError is told."""

    def validate(text: str) -> str:
        check(text)
        return text

    return AfterValidator(validate)


def parse_network(text: str) -> Network:
    """Any network; raises ValueError in words."""
    try:
        return ip_network(text)
    except ValueError as error:
        try:
            hint = f"; did you mean {ip_network(text, strict=False)}?" if "/" in text else ""
        except ValueError:
            hint = ""
        msg = f"{text!r} is no network prefix such as 10.20.0.0/16{hint}"
        raise ValueError(msg) from error


def _address(text: str) -> None:
    try:
        ip_address(text)
    except ValueError:
        msg = f"{text!r} is no IP address"
        raise ValueError(msg) from None


def _inside(text: str) -> None:
    try:
        ip_interface(text)
    except ValueError:
        msg = f"{text!r} is no address such as 10.255.0.0/31"
        raise ValueError(msg) from None


def _device(text: str) -> None:
    if _DEVICE.fullmatch(text) is None:
        msg = f"{text!r} is no interface name: letters, digits, _ . : @ and -, {INTERFACE_LENGTH} at most"
        raise ValueError(msg)


Prefix: TypeAlias = Annotated[str, checked(parse_network)]
"""A network, `0.0.0.0/0` and `::/0` among them."""

PlainAddress: TypeAlias = Annotated[str, checked(_address)]
"""An IP address."""

InsideAddress: TypeAlias = Annotated[str, checked(_inside)]
"""An IP address, with the length of its network or without."""

Device: TypeAlias = Annotated[str, checked(_device)]
"""The name of an interface, of what is usual in one."""
