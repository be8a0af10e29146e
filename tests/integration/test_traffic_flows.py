"""Traffic of every kind between two gateways with a router between them: figures, thresholds, and what goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.traffic_rig import ENV, Traffic, spec, traces

from skyspan.contracts.transport import Command, Effect
from skyspan.model.change import Action, Change
from skyspan.model.error import NotReadyError, SpecError, ToolMissingError
from skyspan.testing.gate import Died, Gate, Side
from skyspan.testing.gateway_world import GatewayWorld, Machine
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.integration

EAST, WEST = {"host": "east-gw"}, {"host": "west-gw"}

LOSS = """
nft add table inet faults
nft add chain inet faults forward '{ type filter hook forward priority 0; }'
nft add rule inet faults forward numgen random mod 1000 '<' $1 drop
"""

MARKED = "nft add table inet marks; nft add chain inet marks seen '{ type filter hook forward priority 1; }'; " + (
    "nft add rule inet marks seen ip dscp ef counter"
)

NAT = """
nft add table ip outside
nft add chain ip outside in '{ type nat hook prerouting priority dstnat; }'
nft add rule ip outside in ip daddr 198.18.9.9 dnat to 198.18.2.2
"""

AGENT = """
mkdir -p /run/agent
printf 'rocommunity lab-community\\nagentaddress udp:198.18.2.2:161\\nsysName west-gw\\n' > /run/agent/snmpd.conf
SNMP_PERSISTENT_DIR=/run/agent snmpd -C -c /run/agent/snmpd.conf -Lf /run/agent/log -p /run/agent/pid
"""


def flow(kind: str, **settings: Any) -> dict[str, Any]:
    quick = {"duration": 1} if kind == "iperf3" else {"duration": 0.3, "per_second": 40, "timeout": 2}
    return {"kind": kind, "from": EAST, "to": WEST} | quick | settings


@pytest.fixture
async def sites() -> AsyncIterator[GatewayWorld]:
    world = await GatewayWorld.make(LocalTransport(ENV))
    await world.add_ipv6()
    yield world
    await world.close()


@pytest.fixture
def traffic(sites: GatewayWorld, tmp_path: Path) -> Traffic:
    return Traffic(ProviderWorld(tmp_path, sites.gateways, hosts=sites.hosts))


async def test_flows_are_measured_and_held_against_thresholds(sites: GatewayWorld, traffic: Traffic) -> None:
    east, west, router = (sites.machines[name] for name in ("east-gw", "west-gw", "router"))
    await sites.listen("west-gw", 47800)
    await west.sh(AGENT)
    await router.sh(MARKED)
    await router.sh(NAT)
    before = [await traces(east), await traces(west)]
    silver = {"min_throughput": "1M", "max_loss": 0.2}
    settings = spec(
        {
            "bulk": flow("iperf3", rate="20M", parallel=2),
            "voice": flow("iperf3", protocol="udp", rate="2M", dscp=46, thresholds=silver),
            "home": flow("iperf3", rate="5M", reverse=True),
            "requests": flow("tcp", thresholds={"max_latency": "1s", "max_p95": "2s"}),
            "echo": flow("udp"),
            "web": flow("http", size=2000),
            "six": flow("tcp", to={"host": "west-gw", "address": "fd18:2::2"}),
            "agent": flow("snmp", community="lab-community"),
            "tree": flow("snmp", community="lab-community", oid="1.3.6.1.2.1.1", walk=True, version="1"),
            "reach": flow("ping", thresholds={"max_loss": 0}),
            "nat": flow("iperf3", rate="5M", to={"host": "west-gw", "address": "198.18.9.9"}),
            "inner": flow("udp", to={"host": "west-gw", "address": "198.18.9.9"}),
            "door": flow("tcp", to={"address": "198.18.2.2"}, port=47800),
        },
        together=True,
    )
    found = await traffic.up(settings)
    assert 5e6 < found["bulk"]["throughput"] < 25e6
    assert found["bulk"]["latency_ms"]["avg"] > 0
    assert found["bulk"]["tool"] == "iperf3"
    assert 1e6 < found["voice"]["throughput"] < 2.5e6
    assert found["voice"]["jitter_ms"] >= 0
    assert 2e6 < found["home"]["throughput"] < 6e6
    assert 2e6 < found["nat"]["throughput"] < 6e6, "it listens though the address is not its own"
    for name in ("requests", "echo", "web", "six", "agent", "tree", "reach", "inner", "door"):
        times = found[name]["latency_ms"]
        assert found[name]["received"] >= 3, name
        assert found[name]["loss"] == 0, (name, found[name])
        assert 0 < times["min"] <= times["p50"] <= times["p95"] <= times["max"], name
    assert found["web"]["statuses"] == {"200": found["web"]["sent"]}
    ports = [found[name]["port"] for name in ("bulk", "voice", "home", "requests", "echo", "web", "six")]
    assert 47800 not in ports, "the port that somebody else has is left to him"
    assert "packets 0 " not in await router.sh("nft list table inet marks")
    assert [await traces(east), await traces(west)] == before, "what was started is ended, and nothing left behind"
    said = traffic.world.report.said() + "".join(command.display() for command in traffic.world.commands)
    assert "lab-community" not in said

    traffic.world.commands.clear()
    assert await traffic.up(settings) == found
    assert not [command for command in traffic.world.commands if command.effect is Effect.WRITE]

    await router.sh(LOSS, "300")
    strict, hasty = {"max_loss": 0.02}, {"per_second": 100, "timeout": 0.5}
    lossy = spec({"reach": flow("ping", duration=0.5, thresholds=strict, **hasty), "echo": flow("udp", **hasty)})
    with pytest.raises(NotReadyError, match=r"1 of 2 flows fail: reach: loss [1-9]\S* % is above 2 %") as broken:
        await traffic.up(lossy)
    assert "FAIL reach (ping east-gw → west-gw)" in broken.value.detail
    assert "ok   echo (udp east-gw → west-gw)" in broken.value.detail
    await router.sh("nft delete table inet faults")

    with pytest.raises(NotReadyError, match="flow gone: nothing passed"):
        await traffic.up(spec({"gone": flow("ping", duration=0.05, timeout=0.5, to={"address": "198.18.2.99"})}))
    with pytest.raises(
        NotReadyError, match="flow shut: iperf3: unable to connect to server: Connection refused"
    ) as shut:
        await traffic.up(spec({"shut": flow("iperf3", to={"address": "198.18.2.2"}, port=47999)}))
    assert "does tcp/47999 pass from east-gw to 198.18.2.2" in shut.value.hint
    with pytest.raises(SpecError, match="flow full: no port of 47800 is free at west-gw"):
        await traffic.up(spec({"full": flow("udp", port=47800)}))
    with pytest.raises(SpecError, match="flow lost: the composition has no host 'nowhere'"):
        await traffic.look(spec({"lost": flow("ping", to={"host": "nowhere"})}))
    assert [await traces(east), await traces(west)] == before, "nothing is left of what failed either"

    # Skyspan dies while something listens: the next apply clears it away, and so does destroy.
    one = spec({"echo": flow("udp")})
    for mend in (traffic.up, traffic.down):
        with pytest.raises(Died):
            await traffic.provider.apply(one, Change(Action.CREATE), traffic.world.writing(Gate((2, Side.AFTER))))
        assert "echo.listen@" in await traces(west)
        await mend(one)
        assert [await traces(east), await traces(west)] == before
        traffic.world.kept.data.clear()


@dataclass(frozen=True)
class Unprivileged(Machine):
    """A login that is not root."""

    def inside(self, command: Command) -> Command:
        whoever = ("setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups", "env", "HOME=/run/home")
        return super().inside(replace(command, argv=(*whoever, *command.argv)))


async def test_a_login_that_is_not_root_is_enough(sites: GatewayWorld, tmp_path: Path) -> None:
    gateways = {name: Unprivileged(name, machine.pid, machine.here) for name, machine in sites.gateways.items()}
    for machine in sites.gateways.values():
        await machine.sh("mkdir /run/home; chown 1234:1234 /run/home")
    traffic = Traffic(ProviderWorld(tmp_path, gateways, hosts=sites.hosts))
    settings = spec({"echo": flow("tcp", mode="background"), "bulk": flow("iperf3", rate="5M")})
    found = await traffic.up(settings)
    assert found["echo"]["loss"] == 0
    west = sites.machines["west-gw"]
    assert "echo.listen" in await west.sh("ls /run/home/.skyspan/traffic/*")
    assert not await west.sh("ls /var/lib")
    await traffic.down(settings)
    assert not await west.sh("ls -A /run/home")
    assert "SKYSPAN" not in await traces(west)


async def test_a_missing_tool_is_replaced_or_named(sites: GatewayWorld, traffic: Traffic) -> None:
    west = sites.machines["west-gw"]
    hide = 'for name; do mount --bind /dev/null "$(readlink -f "$(command -v "$name")")"; done'
    await west.sh(hide, "iperf3")
    both = {
        "bulk": flow("iperf3", rate="10M", parallel=2),
        "home": flow("iperf3", rate="10M", reverse=True),
        "voice": flow("iperf3", protocol="udp", rate="2M", thresholds={"max_loss": 0.5, "max_jitter": "500ms"}),
    }
    found = await traffic.up(spec(both, together=True))
    assert {name: one["tool"] for name, one in found.items()} == dict.fromkeys(both, "python3")
    assert 2e6 < found["bulk"]["throughput"] < 12e6
    assert 2e6 < found["home"]["throughput"] < 12e6
    assert 4e5 < found["voice"]["throughput"] < 2.5e6
    await west.sh(hide, "python3", "ping")
    back = {"from": WEST, "to": EAST}
    for settings, words, hint in (
        (flow("iperf3"), "no iperf3 and no python3 on west-gw", "the package iperf3 on west-gw, or python3 at both"),
        (flow("udp"), "no python3 on west-gw for a flow of kind udp", "the package python3 on west-gw"),
        (flow("ping", **back), "no ping on west-gw", "the package iputils-ping on west-gw"),
    ):
        with pytest.raises(ToolMissingError, match=words) as missing:
            await traffic.up(spec({"lab": settings}))
        assert hint in missing.value.hint
    # Without Python a web server is asked by curl.
    found = await traffic.up(spec({"web": flow("http", **back)}))
    assert found["web"]["tool"] == "curl"
    assert found["web"]["loss"] == 0


async def test_flows_in_the_background_go_on_and_are_looked_after(sites: GatewayWorld, traffic: Traffic) -> None:
    east, west = (sites.machines[name] for name in ("east-gw", "west-gw"))
    before = [await traces(east), await traces(west)]
    quick = {"mode": "background", "duration": 0.5}
    settings = spec(
        {
            "voice": flow("iperf3", protocol="udp", rate="1M", mode="background", thresholds={"max_loss": 0.05}),
            "web": flow("http", **quick),
            "reach": flow("ping", **quick, thresholds={"max_loss": 0.05}),
        },
        ready_within=8,
    )
    found = await traffic.up(settings)
    assert found["voice"]["throughput"] > 8e5
    assert found["web"]["loss"] == 0
    running = await traces(east) + await traces(west)
    for role in ("voice.send", "voice.listen", "web.send", "web.listen", "reach.send"):
        assert f".{role}@" in running
    traffic.world.commands.clear()
    assert await traffic.up(settings) == found, "outputs stay those of the first window"
    assert len(traffic.world.commands) == 2, "a look is one command for each host"

    # One of them loses its process, the others go on untouched.
    pids = 'for role in /var/lib/skyspan/traffic/*/*.*; do echo "${role##*/} $(cat $role/pid)"; done'
    old = dict(line.split() for line in (await east.sh(pids)).splitlines())
    await east.sh("kill -9 $1 $(cat /proc/$1/task/$1/children)", old["web.send"])
    seen, change = await traffic.look(settings)
    assert seen.drifted
    assert [item.address for item in change.resources] == ["east-gw: generator of web"]
    assert change.action is Action.UPDATE
    await traffic.up(settings)
    new = dict(line.split() for line in (await east.sh(pids)).splitlines())
    assert [role for role in old if old[role] != new[role]] == ["web.send"]

    # Another setting of one flow restarts that flow alone.
    changed = settings.model_copy(
        update={"flows": settings.flows | {"reach": settings.flows["reach"].model_copy(update={"size": 100})}}
    )
    await traffic.up(changed)
    newer = dict(line.split() for line in (await east.sh(pids)).splitlines())
    assert [role for role in new if new[role] != newer[role]] == ["reach.send"]

    await traffic.down(changed)
    assert [await traces(east), await traces(west)] == before
