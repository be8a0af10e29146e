"""What a forwarder is told and what it tells, as JSON: by standard input when it starts, later through its socket.

Only what goes by standard input holds secrets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyspan.contracts.forwarding import (
    Forward,
    ForwarderState,
    Forwarding,
    ForwardKind,
    ForwardState,
    Place,
    Trouble,
    TroubleKind,
)
from skyspan.contracts.host import Host
from skyspan.model.secret import Secret
from skyspan.transports.ssh_connect import SshSettings


@dataclass(frozen=True, slots=True)
class Way:
    """How to reach a host: `hosts` are those to connect to in order, jump hosts first, each through the one before."""

    hosts: tuple[Host, ...]
    ssh: SshSettings

    def digest(self) -> str:
        """Differs when the way does, whether by an address, a key or the trust in a host."""
        return hashlib.sha256(json.dumps(way_record(self), sort_keys=True).encode()).hexdigest()


def way_record(way: Way) -> dict[str, Any]:
    """The way as JSON, its secrets in clear."""
    ssh = way.ssh
    return {
        "hosts": [
            {
                "name": host.name,
                "address": host.address,
                "port": host.port,
                "user": host.user,
                "key": host.key.reveal() if host.key is not None else None,
                "key_file": host.key_file,
                "host_key": host.host_key,
                "known_hosts": host.known_hosts,
            }
            for host in way.hosts
        ],
        "known_hosts": str(ssh.known_hosts) if ssh.known_hosts is not None else None,
        "identities": [str(path) for path in ssh.identities],
        "agent": ssh.agent,
        "connect_timeout_s": ssh.connect_timeout_s,
    }


def way_of(record: Mapping[str, Any]) -> Way:
    """The way that `record` came from."""
    hosts = tuple(
        Host(**{**item, "key": Secret(item["key"]) if item["key"] is not None else None}) for item in record["hosts"]
    )
    known = record["known_hosts"]
    return Way(
        hosts,
        SshSettings(
            known_hosts=Path(known) if known is not None else None,
            identities=tuple(Path(path) for path in record["identities"]),
            agent=record["agent"],
            connect_timeout_s=record["connect_timeout_s"],
        ),
    )


def forwarding_record(forwarding: Forwarding) -> dict[str, Any]:
    """What is to be forwarded, as JSON."""
    return {
        "through": forwarding.through,
        "keepalive": [forwarding.keepalive_s, forwarding.keepalive_count],
        "forwards": [
            {"name": item.name, "kind": item.kind.value, "listen": list(item.listen), "to": item.to and list(item.to)}
            for item in forwarding.forwards
        ],
    }


def forwarding_of(record: Mapping[str, Any]) -> Forwarding:
    """The forwarding that `record` came from."""
    interval, count = record["keepalive"]
    forwards = tuple(
        Forward(item["name"], ForwardKind(item["kind"]), _place(item["listen"]), item["to"] and _place(item["to"]))
        for item in record["forwards"]
    )
    return Forwarding(record["through"], forwards, interval, count)


def state_record(state: ForwarderState) -> dict[str, Any]:
    """A forwarder's state, as JSON; whether it is `current` is for the asker to say."""
    return {
        "forwarding": forwarding_record(state.forwarding),
        "connected": state.connected,
        "connections": state.connections,
        "trouble": trouble_record(state.trouble),
        "forwards": {
            name: [item.listening, trouble_record(item.trouble), item.tried, item.failed]
            for name, item in state.forwards.items()
        },
    }


def state_of(record: Mapping[str, Any], *, current: bool) -> ForwarderState:
    """The state that `record` came from."""
    forwards = {
        name: ForwardState(listening, trouble_of(trouble), tried, failed)
        for name, (listening, trouble, tried, failed) in record["forwards"].items()
    }
    return ForwarderState(
        forwarding_of(record["forwarding"]),
        current,
        record["connected"],
        record["connections"],
        trouble_of(record["trouble"]),
        forwards,
    )


def trouble_record(trouble: Trouble | None) -> list[str] | None:
    """A trouble as JSON."""
    return None if trouble is None else [trouble.kind.value, trouble.summary, trouble.detail, trouble.hint]


def trouble_of(record: list[str] | None) -> Trouble | None:
    """The trouble that `record` came from."""
    return None if record is None else Trouble(TroubleKind(record[0]), *record[1:])


def _place(item: Any) -> Place:
    address, port = item
    return address, port
