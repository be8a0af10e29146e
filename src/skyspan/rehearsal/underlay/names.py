"""How a world's machines know each other by name: their resolvers, their own files, the name server's zone (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Address


def resolver_settings(server: IPv4Address | None) -> str:
    """A resolv.conf that asks the world's name server; or nobody, which fails at once."""
    return f"nameserver {server or '127.0.0.1'}\noptions timeout:1 attempts:2\n"


LOCALHOST = "127.0.0.1 localhost\n"


def own_hosts(name: str) -> str:
    """The /etc/hosts of a machine that asks a name server for all others."""
    return f"{LOCALHOST}127.0.1.1 {name}\n"


def zone(machines: Mapping[str, str], swapped: Mapping[str, str | None]) -> str:
    """What the name server answers: the machines' addresses, or what was put in their place."""
    answers = {**machines, **swapped}
    return json.dumps({name.lower(): [address] for name, address in answers.items() if address is not None})
