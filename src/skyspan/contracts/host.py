"""A host as the transports and providers see it: fully known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from skyspan.model.secret import Secret
from skyspan.model.value import Value


@dataclass(frozen=True, slots=True)
class Host:
    """A logical machine with everything needed to reach it. Paths are absolute."""

    name: str
    address: str
    port: int = 22
    user: str = "root"
    key: Secret | None = None
    key_file: str | None = None
    host_key: str | None = None
    known_hosts: str | None = None
    jump: str | None = None
    roles: tuple[str, ...] = ()
    vars: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
