"""Hosts as they are remembered with a stage, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from skyspan.contracts.host import Host
from skyspan.model.value import Value


def host_record(host: Host) -> dict[str, Value]:
    """The host's fields as values (secrets stay secrets: the record is stored sealed)."""
    record: dict[str, Value] = {item.name: getattr(host, item.name) for item in fields(Host)}
    return record | {"roles": list(host.roles), "vars": dict(host.vars)}


def host_records(hosts: Mapping[str, Host]) -> dict[str, dict[str, Value]]:
    """All of them, by name."""
    return {name: host_record(hosts[name]) for name in sorted(hosts)}


def restored_hosts(records: Mapping[str, Mapping[str, Value]]) -> dict[str, Host]:
    """The hosts that the records came from; fields of a newer version are ignored."""
    known = {item.name for item in fields(Host)}
    hosts: dict[str, Host] = {}
    for name, record in records.items():
        values: dict[str, Any] = {key: value for key, value in record.items() if key in known}
        values["roles"] = tuple(values.get("roles", ()))
        hosts[name] = Host(**values)
    return hosts
