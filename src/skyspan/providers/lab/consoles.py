"""The ways to a lab node's console, as commands that a person types: SSH, `docker exec`, telnet; pure.

Users and command lines per kind are those of containerlab's manual, "Kinds"; the serial console of a virtual machine in
a container answers on TCP port 5000 (vrnetlab).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from types import MappingProxyType

from skyspan.contracts.host import Host
from skyspan.providers.lab.topology import LabNode

_SHELLS: Mapping[str, str] = MappingProxyType(
    {
        "arista_ceos": "Cli",
        "ceos": "Cli",
        "cisco_xrd": "/pkg/bin/xr_cli.sh",
        "frr": "vtysh",
        "juniper_cjunosevolved": "cli",
        "juniper_crpd": "cli",
        "nokia_srlinux": "sr_cli",
        "srl": "sr_cli",
    }
)
_USERS: Mapping[str, str] = MappingProxyType({"frr": "root", "juniper_crpd": "root", "linux": "root"})
_NO_CONTAINER = frozenset({"bridge", "host", "ovs-bridge"})
_SERIAL_PORT = 5000
_VIRTUAL_MACHINES = frozenset(
    [
        "aruba_aoscx",
        "checkpoint_cloudguard",
        "cisco_asav",
        "cisco_c8000v",
        "cisco_cat9kv",
        "cisco_csr1000v",
        "cisco_ftdv",
        "cisco_n9kv",
        "cisco_sdwan",
        "cisco_vios",
        "cisco_xrv",
        "cisco_xrv9k",
        "dell_ftosv",
        "fortinet_fortigate",
        "freebsd",
        "generic_vm",
        "huawei_vrp",
        "ipinfusion_ocnos",
        "juniper_vjunosevolved",
        "juniper_vjunosrouter",
        "juniper_vjunosswitch",
        "juniper_vmx",
        "juniper_vqfx",
        "juniper_vsrx",
        "mikrotik_ros",
        "nokia_sros",
        "openbsd",
        "openwrt",
        "paloalto_panos",
        "sonic-vm",
        "arista_veos",
    ]
)


def consoles(node: LabNode, host: Host | None) -> dict[str, str]:
    """Commands by their way: `exec`, `ssh`, `telnet`; only those that the node can have.

    `host` is where the lab runs, None being this machine: SSH to a node goes through it, as its management network is
    reached from there only.
    """
    if node.kind in _NO_CONTAINER:
        return {}
    found = {}
    if node.container:
        inside = ("docker", "exec", "-it", node.container, _SHELLS.get(node.kind, "sh"))
        found["exec"] = shlex.join(inside if host is None else (*_to(host, terminal=True), shlex.join(inside)))
    address = node.ipv4 or node.ipv6
    if address:
        user = node.user or _USERS.get(node.kind, "admin")
        jump = () if host is None else _jump(host)
        found["ssh"] = shlex.join(("ssh", *jump, f"{user}@{address}"))
        if node.kind in _VIRTUAL_MACHINES:
            telnet = ("telnet", address, str(_SERIAL_PORT))
            found["telnet"] = shlex.join(telnet if host is None else (*_to(host, terminal=True), shlex.join(telnet)))
    return found


def _to(host: Host, *, terminal: bool) -> tuple[str, ...]:
    return (
        "ssh",
        *(("-t",) if terminal else ()),
        *(("-p", str(host.port)) if host.port != 22 else ()),
        *(("-i", host.key_file) if host.key_file else ()),
        f"{host.user}@{host.address}",
    )


def _jump(host: Host) -> tuple[str, ...]:
    """Through the lab's host. `-J` takes no key of its own, so that one is named by a proxy command."""
    if host.key_file:
        return ("-o", f"ProxyCommand={shlex.join((*_to(host, terminal=False), '-W', '[%h]:%p'))}")
    address = f"[{host.address}]" if ":" in host.address else host.address
    return ("-J", f"{host.user}@{address}" + (f":{host.port}" if host.port != 22 else ""))
