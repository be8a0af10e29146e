"""Static routes on gateways in network namespaces: ways there and back, drift, what is somebody else's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.driven import Driven
from tests.support.gateways import stage_on

from skyspan.contracts.watch import Cause
from skyspan.model.change import Action
from skyspan.model.error import NotReadyError, SpecError, ToolFailedError
from skyspan.networks.routes.provider import RoutesProvider
from skyspan.networks.routes.spec import RoutesSpec
from skyspan.testing.gateway_world import GatewayWorld
from skyspan.testing.provider_world import ProviderWorld

pytestmark = pytest.mark.integration


def spec(*to: str, returns: Any = (), **route: Any) -> RoutesSpec:
    east = {"host": "east-gw", "to": to or ["10.2.0.0/24"], "via": "198.18.1.1"} | route
    west = {"host": "west-gw", "to": ["10.1.0.0/24"], "via": "198.18.2.1"}
    return RoutesSpec.model_validate({"routes": [east, west], "returns": returns, "ready_within": 1})


@dataclass
class Ways(Driven[RoutesSpec]):
    """A routes stage in the world, driven as the engine does it."""

    sites: GatewayWorld
    world: ProviderWorld
    provider: RoutesProvider = field(default_factory=RoutesProvider)

    @property
    def drives(self) -> RoutesProvider:
        return self.provider

    async def routes(self, gateway: str) -> str:
        return await self.sites.machines[gateway].sh("ip route show proto 242")

    async def passages(self, settings: RoutesSpec) -> dict[tuple[str, str], str]:
        """What is the matter with each way, as a supervisor sees it."""
        found = await self.provider.probe(settings, self.world.reading())
        assert all(one.passed is not None for one in found)
        return {(one.source, one.target): one.reason for one in found}


@pytest.fixture
async def ways(sites: GatewayWorld, tmp_path: Path) -> Ways:
    await sites.machines["router"].sh(
        "ip route add 10.1.0.0/24 via 198.18.1.2; ip route add 10.2.0.0/24 via 198.18.2.2"
    )
    for gateway in sites.gateways.values():
        await gateway.sh("echo 1 > /proc/sys/net/ipv4/ip_forward")
    return Ways(sites, stage_on(sites, tmp_path))


async def test_routes_are_set_changed_and_removed_exactly(ways: Ways) -> None:
    before = await ways.sites.state()
    seen = await ways.up(spec())
    assert seen.healthy
    assert await ways.routes("east-gw") == "10.2.0.0/24 via 198.18.1.1 dev eth0 metric 10 \n"
    assert await ways.sites.machines["east"].pings("10.2.0.10")
    assert (await ways.look(spec()))[1].action is Action.NONE
    seen, change = await ways.look(spec("10.7.0.0/16", "10.2.0.0/24", metric=30))
    assert not seen.drifted, "settings that changed are no drift"
    assert [(item.address, item.action) for item in change.resources] == [
        ("east-gw: route 10.2.0.0/24 metric 30", Action.CREATE),
        ("east-gw: route 10.7.0.0/16 metric 30", Action.CREATE),
        ("east-gw: route 10.2.0.0/24 metric 10", Action.DESTROY),
    ]
    await ways.up(spec("10.7.0.0/16", "10.2.0.0/24", metric=30))
    assert "metric 10" not in await ways.routes("east-gw")
    assert len((await ways.routes("east-gw")).splitlines()) == 2
    await ways.down(spec())
    assert await ways.sites.state() == before


async def test_a_route_taken_away_or_altered_is_drift_and_repaired(ways: Ways) -> None:
    await ways.up(spec())
    before = await ways.sites.state()
    scripts = {
        Action.CREATE: "ip route delete 10.2.0.0/24 proto 242",
        Action.UPDATE: "ip route replace 10.2.0.0/24 via 10.1.0.10 proto 242 metric 10",
    }
    for action, script in scripts.items():
        await ways.sites.machines["east-gw"].sh(script)
        seen, change = await ways.look(spec())
        assert seen.drifted
        assert [(item.address, item.action) for item in change.resources] == [
            ("east-gw: route 10.2.0.0/24 metric 10", action)
        ]
        assert (await ways.up(spec())).healthy
        assert await ways.sites.state() == before


async def test_routes_that_went_with_their_interface_are_named_and_set_again(ways: Ways) -> None:
    back = [{"host": "west-gw", "to": ["10.1.0.0/24"]}]
    settings = spec(returns=back)
    await ways.up(settings)
    before = await ways.sites.state()
    assert await ways.passages(settings) == {("east-gw", "10.2.0.0/24"): "", ("west-gw", "10.1.0.0/24"): ""}
    gateway = ways.sites.machines["east-gw"]
    first = await gateway.sh("ip route show default")
    await gateway.sh(f"ip link set eth0 down; ip link set eth0 up; ip route replace {first}")
    assert (await ways.passages(settings))["east-gw", "10.2.0.0/24"] == "the route is not there"
    (found,) = await ways.provider.diagnose(settings, ways.world.reading())
    assert (found.cause, found.where) == (Cause.ROUTE_MISSING, "east-gw")
    east, west = ways.provider.repairs(settings, ways.world.reading())
    with pytest.raises(NotReadyError, match="reapply on west-gw cannot help: its routes are there"):
        await ways.provider.repair(settings, west, ways.world.writing())
    await ways.provider.repair(settings, east, ways.world.writing())
    assert set((await ways.passages(settings)).values()) == {""}
    assert await ways.sites.state() == before

    # A way back that somebody else sets is named, and nothing here can bring it back.
    await ways.down(settings)
    lonely = spec(returns=[{"host": "west-gw", "to": ["10.77.0.0/24"]}])
    await ways.sites.machines["west-gw"].sh("ip route add 10.77.0.0/24 via 198.18.2.1")
    await ways.up(lonely)
    await ways.sites.machines["west-gw"].sh("ip route delete 10.77.0.0/24")
    (found,) = await ways.provider.diagnose(lonely, ways.world.reading())
    assert (found.cause, found.where) == (Cause.RETURN_ROUTE_MISSING, "west-gw")
    await ways.down(lonely)


async def test_a_route_may_stand_by_for_a_better_one(ways: Ways) -> None:
    await ways.sites.machines["east-gw"].sh("ip route add 10.2.0.0/24 via 10.1.0.10 metric 20")
    seen = await ways.up(spec(metric=100000))
    assert seen.healthy
    await ways.sites.machines["east-gw"].sh("ip route delete 10.2.0.0/24 via 10.1.0.10 metric 20")
    assert await ways.sites.machines["east"].pings("10.2.0.10")
    await ways.down(spec(metric=100000))


async def test_stop_takes_the_routes_and_up_brings_them_back(ways: Ways) -> None:
    await ways.up(spec())
    for _ in range(2):
        await ways.provider.stop(spec(), ways.world.writing())
    assert await ways.routes("east-gw") + await ways.routes("west-gw") == ""
    assert not (await ways.look(spec()))[0].exists
    assert (await ways.up(spec())).healthy


TAKEN = {
    "a connected network": (
        "ip address add 10.2.0.77/16 dev lan",
        "take over the connected network 10.2.0.0/16 of lan",
    ),
    "a route": ("ip route add 10.2.0.0/24 via 10.1.0.10 metric 10", "10.2.0.0/24 with metric 10 is there already"),
    "a marked route of others": (
        "ip route add 10.2.0.0/24 via 10.1.0.10 metric 10 proto 242",
        "10.2.0.0/24 with metric 10 is there already, over lan (proto 242)",
    ),
}


@pytest.mark.parametrize("what", TAKEN)
async def test_what_is_somebody_elses_is_refused_and_not_touched(ways: Ways, what: str) -> None:
    script, words = TAKEN[what]
    await ways.sites.machines["east-gw"].sh(script)
    before = await ways.sites.state()
    with pytest.raises(SpecError) as caught:
        await ways.up(spec())
    assert words in caught.value.summary
    assert caught.value.hint
    assert await ways.sites.state() == before
    await ways.down(spec())
    assert await ways.sites.state() == before


async def test_two_stages_share_a_host_and_leave_each_others_routes(ways: Ways, tmp_path: Path) -> None:
    address = ways.world.address.deployment.stage("second")
    other = Ways(ways.sites, stage_on(ways.sites, tmp_path / "o", address=address))
    second = RoutesSpec.model_validate({"routes": [{"host": "east-gw", "to": ["10.7.0.0/16"], "interface": "eth0"}]})
    await ways.up(spec())
    assert (await other.up(second)).healthy
    await ways.down(spec())
    assert await ways.routes("east-gw") == "10.7.0.0/16 dev eth0 scope link metric 10 \n"
    assert (await other.look(second))[1].action is Action.NONE


async def test_a_missing_way_back_is_named(ways: Ways) -> None:
    back = [{"host": "west-gw", "to": ["10.66.0.0/16"]}, {"host": "west-gw", "to": ["10.1.0.0/24"], "interface": "lan"}]
    with pytest.raises(NotReadyError) as caught:
        await ways.up(spec(returns=back))
    assert "way back of west-gw to 10.66.0.0/16: only by the default route over eth0" in caught.value.detail
    assert "way back of west-gw to 10.1.0.0/24: it goes over eth0, not over lan" in caught.value.detail
    assert (await ways.up(spec(returns=[{"host": "west-gw", "to": ["10.1.0.0/24"]}]))).healthy


async def test_a_preferred_route_of_others_is_named(ways: Ways) -> None:
    await ways.sites.machines["east-gw"].sh("ip route add 10.2.0.0/24 via 10.1.0.10 metric 5")
    with pytest.raises(NotReadyError, match=r"way of east-gw to 10.2.0.0/24: it goes by 10.1.0.10"):
        await ways.up(spec())
    await ways.down(spec())
    assert "metric 5" in await ways.sites.machines["east-gw"].sh("ip route show 10.2.0.0/24")


async def test_a_router_out_of_reach_is_the_kernels_word(ways: Ways) -> None:
    before = await ways.sites.state()
    with pytest.raises(ToolFailedError) as caught:
        await ways.up(spec(via="192.0.2.77", interface="lan"))
    assert "gateway" in caught.value.detail
    assert "the route to 10.2.0.0/24" in caught.value.detail
    await ways.down(spec())
    assert await ways.sites.state() == before


async def test_ipv6_routes_are_routes_too(ways: Ways) -> None:
    gateway = ways.sites.machines["east-gw"]
    await gateway.sh("ip address add fd00:1::1/64 dev lan nodad")
    settings = RoutesSpec.model_validate(
        {"routes": [{"host": "east-gw", "to": ["fd00:7::/48"], "via": "fd00:1::10"}], "ready_within": 1}
    )
    before = await ways.sites.state()
    assert (await ways.up(settings)).healthy
    assert "fd00:7::/48 via fd00:1::10" in await gateway.sh("ip -6 route show proto 242")
    assert (await ways.look(settings))[1].action is Action.NONE
    await ways.down(settings)
    assert await ways.sites.state() == before
