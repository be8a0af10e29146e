"""The words of containerlab's topology files: keys by place, kinds, types of links (containerlab 0.79)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

ROOT_KEYS = frozenset({"debug", "mgmt", "name", "prefix", "settings", "topology"})
TOPOLOGY_KEYS = frozenset({"defaults", "groups", "kinds", "links", "nodes"})
MANAGEMENT_KEYS = frozenset(
    {
        *("network", "bridge", "ipv4-subnet", "ipv4-gw", "ipv4-range", "ipv6-subnet", "ipv6-gw", "ipv6-range"),
        *("mtu", "external-access", "skip-when-unused", "driver-opts", "ipv4_subnet", "ipv6_subnet"),
    }
)
FORMER_WORDS: Mapping[str, str] = MappingProxyType({"ipv4_subnet": "ipv4-subnet", "ipv6_subnet": "ipv6-subnet"})
"""Keys of `mgmt` that are still read, with what they are called now."""

NODE_KEYS = frozenset(
    {
        *("aliases", "auto-remove", "binds", "cap-add", "certificate", "cgroup-parent", "cgroupns-mode", "cmd"),
        *("components", "config", "cpu", "cpu-set", "credentials", "devices", "dns", "enforce-startup-config"),
        *("entrypoint", "env", "env-files", "exec", "extras", "group", "healthcheck", "hostname", "image"),
        *("image-pull-policy", "kind", "labels", "license", "link-apply-mode", "memory", "mgmt-ipv4", "mgmt-ipv6"),
        *("network-mode", "pid-mode", "ports", "position", "privileged", "restart-policy", "runtime"),
        *("security-opts", "shm-size", "stages", "startup-config", "startup-delay", "suppress-startup-config"),
        *("sysctls", "tmpfs", "type", "user", "volumes", "username", "password"),
    }
)
LINK_KEYS = frozenset(
    {
        *("dst-port", "endpoint", "endpoints", "host-interface", "ipv4", "ipv6", "labels", "mode", "mtu"),
        *("parent-interface", "remote", "src-port", "type", "udp-port", "vars", "vni"),
    }
)
ENDPOINT_KEYS = frozenset({"interface", "ipv4", "ipv6", "mac", "node", "vars"})
LINK_TYPES = frozenset(
    {"brief", "dummy", "host", "macvlan", "mgmt-net", "veth", "veth-stitch", "vxlan", "vxlan-stitch"}
)

OUTSIDE: Mapping[str, str] = MappingProxyType({"host": "host", "mgmt-net": "mgmt-net", "macvlan": "macvlan"})
"""What is no node where an endpoint is written `node:interface`, and the type of link that it makes."""

WITHOUT_CONTAINER = frozenset({"bridge", "ext-container", "host", "k8s-kind", "ovs-bridge"})
"""Kinds whose nodes are not containers that containerlab makes under the node's own name."""

EXTERNAL = "ext-container"
"""The kind of a container that somebody else makes; its node is called as the container is."""

PLAIN_INTERFACES = frozenset({"bridge", "ext-container", "host", "linux", "ovs-bridge"})
"""Kinds whose interfaces are called on Linux just as in the topology; others translate (`Ethernet1/1` to `eth1_1`)."""

KINDS = frozenset(
    {
        *("6wind_vsr", "arista_ceos", "arista_eos", "arista_veos", "arrcus_arcos", "aruba_aoscx", "border0", "bridge"),
        *("c8000", "ceos", "checkpoint_cloudguard", "ciena_saos", "cisco_asav", "cisco_c8000", "cisco_c8000v"),
        *("cisco_cat9kv", "cisco_csr1000v", "cisco_ftdv", "cisco_iol", "cisco_n9kv", "cisco_sdwan", "cisco_vios"),
        *("cisco_xrd", "cisco_xrd_vrouter", "cisco_xrv", "cisco_xrv9k", "cjunosevolved", "crpd", "cumulus_cvx", "cvx"),
        *("dell_ftosv", "dell_sonic", "ext-container", "f5_bigip-ve", "fdio_vpp", "fortinet_fortigate", "freebsd"),
        *("generic_vm", "host", "huawei_vrp", "ipinfusion_ocnos", "juniper_cjunosevolved", "juniper_crpd"),
        *("juniper_csrx", "juniper_vjunosevolved", "juniper_vjunosrouter", "juniper_vjunosswitch", "juniper_vmx"),
        *("juniper_vqfx", "juniper_vsrx", "k8s-kind", "keysight_ixia-c-one", "linux", "mikrotik_ros", "nokia_srlinux"),
        *("nokia_sros", "nokia_srsim", "nvidia_cumulusvx", "openbsd", "openwrt", "ostinato", "ovs-bridge"),
        *("paloalto_panos", "plvision_sonic", "rare", "sonic-vm", "sonic-vs", "spirent_stc", "srl", "veesix_osvbng"),
        *("vpp", "vr-aoscx", "vr-arista_veos", "vr-aruba_aoscx", "vr-c8000v", "vr-ciena_saos", "vr-cisco_csr1000v"),
        *("vr-cisco_n9kv", "vr-cisco_xrv", "vr-cisco_xrv9k", "vr-csr", "vr-dell_ftosv", "vr-ftosv"),
        *("vr-juniper_vmx", "vr-juniper_vqfx", "vr-juniper_vsrx", "vr-mikrotik_ros", "vr-n9kv", "vr-nokia_sros"),
        *("vr-paloalto_panos", "vr-pan", "vr-ros", "vr-sros", "vr-veos", "vr-vjunosevolved", "vr-vjunosswitch"),
        *("vr-vmx", "vr-vqfx", "vr-vsrx", "vr-xrv", "vr-xrv9k", "vyosnetworks_vyos", "xrd"),
    }
)
"""Kinds that are known here; an unknown one is refused before anything is touched, with the nearest of these."""
