"""How the host is looked at: both tunnels at once, then BGP through them."""

from __future__ import annotations

from collections.abc import Sequence

from skyspan.contracts.context import ReadContext
from skyspan.networks.awsvpn.observation import View, views
from skyspan.networks.awsvpn.spec import AwsVpnSpec
from skyspan.networks.awsvpn.tunnels import plan_tunnels, planes_of, sessions_of
from skyspan.networks.bgp.provider import BgpProvider
from skyspan.networks.ipsec import hosts
from skyspan.networks.ipsec.compare import plane_of, refuse_missing_tools, site_address
from skyspan.networks.ipsec.link import EndState
from skyspan.networks.ipsec.observation import Look
from skyspan.networks.ipsec.parse import Survey


async def planned(
    spec: AwsVpnSpec, ctx: ReadContext, *, probe: bool
) -> tuple[tuple[EndState, ...], tuple[Survey, ...]]:
    """Both tunnels as they are to be and as they are: who carries the packets is decided by what the host has."""
    wished = "userspace" if spec.mode == "userspace" else planes_of(spec)[0]
    ends = plan_tunnels(spec, ctx.address, ctx.hosts, wished)
    seen = await hosts.survey(ends, ctx, probe=probe)
    refuse_missing_tools(spec.host, seen[0])
    plane = plane_of(spec.mode, spec.host, seen[0], planes_of(spec))
    source = site_address(4, ends[0], seen[0])
    decided = plan_tunnels(spec, ctx.address, ctx.hosts, plane, source)
    if probe and decided[0].mtu != ends[0].mtu:
        seen = await hosts.survey(decided, ctx, probe=True)
    return decided, tuple(seen)


async def look(spec: AwsVpnSpec, ctx: ReadContext, *, probe: bool) -> View:
    """Everything at once."""
    ends, seen = await planned(spec, ctx, probe=probe)
    return await view_of(spec, views(spec, ends, seen), ctx)


async def view_of(spec: AwsVpnSpec, looks: Sequence[Look], ctx: ReadContext) -> View:
    """The tunnels as seen, and how BGP through them is."""
    view = View(tuple(looks))
    bgp = sessions_of(spec, view.ends)
    return view if bgp is None else View(view.looks, await BgpProvider().observe(bgp, ctx))
