"""Gateways of two sites in network namespaces, for tests to join."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from skyspan.testing.conformance.provider import ProviderCase
from skyspan.testing.gateway_world import GatewayWorld
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport

ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


@asynccontextmanager
async def gateways(*sides: str) -> AsyncIterator[GatewayWorld]:
    """East and west unless other sides are named, ended with all that runs in them."""
    sites = await GatewayWorld.make(LocalTransport(ENV), sides or ("east", "west"))
    try:
        yield sites
    finally:
        await sites.close()


def stage_on(sites: GatewayWorld, folder: Path, **more: Any) -> ProviderWorld:
    """The world of a stage whose hosts are the gateways."""
    return ProviderWorld(folder, sites.gateways, **{"hosts": sites.hosts} | more)


def between(east: dict[str, Any] | None, west: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Both ends as the settings of a link name them, and what is said of them besides."""
    return [
        {"host": "east-gw", "prefixes": ["10.1.0.0/24"]} | (east or {}),
        {"host": "west-gw", "prefixes": ["10.2.0.0/24"]} | (west or {}),
    ]


@asynccontextmanager
async def given_back(case: ProviderCase, sites: GatewayWorld, bare: dict[str, str]) -> AsyncIterator[ProviderCase]:
    """A case among others in the same world: what it leaves can be destroyed, and then there is nothing of it."""
    yield case
    if case.world.commands:
        await case.destroy()
        assert await sites.state() == bare, "destroy removes whatever the test left"
