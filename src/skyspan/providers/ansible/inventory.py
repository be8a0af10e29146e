"""The inventory and the SSH options of a run (pure): facts about hosts in, JSON and arguments out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from skyspan.contracts.host import Host
from skyspan.model.value import revealed

DEFAULT_KNOWN_HOSTS = "~/.ssh/known_hosts"


def inventory(
    hosts: Mapping[str, Host],
    chosen: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    keys: Mapping[str, str],
    known_hosts: str,
) -> dict[str, Any]:
    """An Ansible inventory of the `chosen` hosts.

    `keys` maps a host to the path of its private key file; `known_hosts` is the path of a file with the pinned keys.
    Roles become groups, and so do `groups`.
    """
    members: dict[str, set[str]] = {name: set(names) & set(chosen) for name, names in groups.items()}
    for name in chosen:
        for role in hosts[name].roles:
            members.setdefault(role, set()).add(name)
    return {
        "all": {
            "hosts": {name: _host_vars(name, hosts, keys, known_hosts) for name in chosen},
            "children": {
                group: {"hosts": {name: {} for name in sorted(names)}} for group, names in sorted(members.items())
            },
        }
    }


def known_hosts_lines(hosts: Mapping[str, Host]) -> str:
    """The pinned host keys as a known_hosts file (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    lines = []
    for host in hosts.values():
        if host.host_key:
            name = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
            lines.append(f"{name} {host.host_key.strip()}")
    return "".join(f"{line}\n" for line in lines)


def ssh_options(host: Host, known_hosts: str) -> list[str]:
    """Options that pin the host's key and never ask."""
    files = " ".join(_config_quoted(path) for path in (known_hosts, host.known_hosts or DEFAULT_KNOWN_HOSTS))
    return [
        "-o", f"UserKnownHostsFile={files}",
        "-o", "GlobalKnownHostsFile=/etc/ssh/ssh_known_hosts",
        "-o", "StrictHostKeyChecking=yes",
        "-o", "BatchMode=yes",
        "-o", "ServerAliveInterval=5",
        "-o", "ServerAliveCountMax=3",
    ]  # fmt: skip


def _host_vars(name: str, hosts: Mapping[str, Host], keys: Mapping[str, str], known_hosts: str) -> dict[str, Any]:
    host = hosts[name]
    options = ssh_options(host, known_hosts)
    if host.jump:
        options += ["-o", f"ProxyCommand={_proxy(host.jump, hosts, keys, known_hosts)}"]
    found: dict[str, Any] = dict(revealed(host.vars))
    found |= {
        "ansible_host": host.address,
        "ansible_port": host.port,
        "ansible_user": host.user,
        "ansible_ssh_common_args": shlex.join(options),
    }
    if name in keys:
        found["ansible_ssh_private_key_file"] = keys[name]
    return found


def _proxy(jump: str, hosts: Mapping[str, Host], keys: Mapping[str, str], known_hosts: str) -> str:
    """The command that carries a connection through `jump` (and whatever that one goes through)."""
    host = hosts[jump]
    words = ["ssh", *ssh_options(host, known_hosts), "-p", str(host.port), "-l", host.user]
    if jump in keys:
        words += ["-i", keys[jump]]
    if host.jump:
        words += ["-o", f"ProxyCommand={_proxy(host.jump, hosts, keys, known_hosts)}"]
    # %h and %p are for ssh(1) itself; everything before them must survive its own expansion.
    return shlex.join(word.replace("%", "%%") for word in words) + " -W '[%h]:%p' " + shlex.quote(host.address)


def _config_quoted(path: str) -> str:
    return f'"{path}"' if " " in path else path
