"""A lab's management network on its host: what the user gives, else what it has, else a free one; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network

from skyspan.model.error import SpecError
from skyspan.providers.containerlab.render import wanted_management
from skyspan.providers.containerlab.topology import Topology
from skyspan.providers.lab.containers import HostLook
from skyspan.providers.lab.management import PoolExhaustedError, allocate, overlapping
from skyspan.providers.lab.topology import Management


def choose_management(
    topology: Topology, look: HostLook, kept: Management | None, pool: Sequence[str], seed: str
) -> Management:
    """The management network of that lab; raises SpecError when the pool has none left."""
    given = wanted_management(topology) or Management("")
    existing = next((net for net in look.networks if given.network and net.name == given.network), None)
    if existing is not None and not existing.by_containerlab:
        # Docker's network of somebody else: the lab joins it as it is.
        subnets = {f"ipv{net.version}": str(net) for net in existing.subnets}
        return Management(existing.name, existing.bridge, **subnets)
    if given.ipv4 or given.ipv6:
        chosen = given
    elif kept is not None and (kept.ipv4 or kept.ipv6):
        chosen = kept
    elif existing is not None:
        subnets = {f"ipv{net.version}": str(net) for net in existing.subnets}
        chosen = Management(existing.name, **subnets)
    else:
        try:
            avoid = [network for _, network in look.taken()]
            chosen = allocate(seed, avoid, [ip_network(part) for part in pool])
        except PoolExhaustedError as error:
            raise SpecError(str(error), hint="give the stage another `pool`") from error
    names = kept or allocate(seed, ())
    network = given.network or names.network
    # The bridge of a network that the user names is containerlab's own choice.
    bridge = given.bridge or ("" if given.network else names.bridge)
    return replace(chosen, network=network, bridge=bridge)


def refuse_overlap(management: Management, look: HostLook, where: str) -> None:
    """Raise SpecError when the subnet belongs to something else on the host."""
    for subnet in (management.ipv4, management.ipv6):
        if not subnet or subnet == "auto":
            continue
        found = overlapping(subnet, look.taken(besides=[management.network]))
        if found:
            raise SpecError(
                f"the management network {subnet} overlaps what {where} has: {found[0]}",
                detail="\n".join(found),
                hint="give `mgmt` of the topology another subnet, or leave it out to have a free one chosen",
            )
