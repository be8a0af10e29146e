"""The traffic provider under the provider suite: a real flow that goes on inside a network namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.traffic_rig import ENV, spec, traces

from skyspan.contracts.host import Host
from skyspan.model.secret import Secret
from skyspan.providers.traffic.provider import TrafficProvider
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.gateway_world import GatewayWorld
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport

GATEWAY = {"host": "lab-gw"}


def flow(**settings: Any) -> dict[str, Any]:
    quick = {"duration": 0.05, "per_second": 50, "timeout": 0.2}
    return {"kind": "tcp", "from": GATEWAY, "to": GATEWAY, "mode": "background"} | quick | settings


@pytest.mark.integration
class TestTraffic(ProviderConformance):
    @pytest.fixture
    async def gateway(self) -> AsyncIterator[GatewayWorld]:
        world = await GatewayWorld.make(LocalTransport(ENV), ())
        yield world
        await world.close()

    @pytest.fixture
    def case(self, tmp_path: Path, gateway: GatewayWorld) -> ProviderCase:
        machine = gateway.machines["router"]

        async def left() -> str:
            return await traces(machine) + await machine.sh("ls /var/lib")

        silent = {"kind": "snmp", "community": Secret("lab-community"), "thresholds": {"max_loss": 1}}
        asked = flow(**silent) | {"mode": "measured"}
        return ProviderCase(
            provider=TrafficProvider(),
            spec=spec({"beat": flow(kind="ping")}),
            changed=spec({"beat": flow(kind="ping", size=100), "echo": flow()}),
            secret_spec=spec({"agent": asked}),
            failing_spec=spec({"agent": asked | {"thresholds": {}}}),
            slow_spec=spec({"long": flow(mode="measured", duration=30)}),
            world=ProviderWorld(tmp_path, {"lab-gw": machine}, hosts={"lab-gw": Host("lab-gw", "127.0.0.1")}),
            snapshot=left,
        )
