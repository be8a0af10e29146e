"""A tailnet of a real Headscale and real tailscaled in network namespaces: joining, keys, tags, faults, leaving."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.tailnet import Stage, spec, tools

from skyspan.contracts.watch import Cause, Repair
from skyspan.model.change import Action, Change
from skyspan.model.secret import Secret
from skyspan.networks.tailscale import errors
from skyspan.testing.provider_world import ProviderWorld
from skyspan.testing.tailnet_world import DOMAIN, SERVER, TailnetWorld
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.integration


@pytest.fixture
async def tailnet() -> AsyncIterator[TailnetWorld]:
    made = await TailnetWorld.make_tailnet(LocalTransport({"PATH": tools(), "LC_ALL": "C.UTF-8"}))
    yield made
    await made.close()


@pytest.fixture
def stage(tailnet: TailnetWorld, tmp_path: Path) -> Stage:
    return Stage(tailnet, ProviderWorld(tmp_path, tailnet.places, hosts=tailnet.hosts))


async def listens(tailnet: TailnetWorld, name: str) -> str:
    await tailnet.listen(name, 8080)
    status = await tailnet.status(name)
    addresses: list[str] = status["TailscaleIPs"]  # type: ignore[assignment]
    return addresses[0]


async def test_hosts_join_reach_each_other_and_are_left_alone_after_that(stage: Stage, tailnet: TailnetWorld) -> None:
    before = await tailnet.state()
    settings = spec(default_tags=["tag:sky"])
    key = await tailnet.key("--tags", "tag:sky", "--reusable", "-e", "1h")
    seen = await stage.up(settings, key)
    assert seen.healthy
    assert seen.outputs["fqdns"].value == {"app-1": f"app-1.{DOMAIN}", "db-1": f"db-1.{DOMAIN}"}
    assert seen.outputs["tags"].value == {"app-1": ["tag:sky"], "db-1": ["tag:sky"]}
    assert seen.outputs["planes"].value == {"app-1": "tun", "db-1": "tun"}
    assert {node["given_name"] for node in await tailnet.nodes()} == {"app-1", "db-1"}
    db = await listens(tailnet, "db-1")
    await tailnet.machines["app-1"].dial(db, 8080, 5)
    # The key goes by standard input alone, and shows nowhere.
    assert [command.stdin for command in stage.written() if command.stdin] == [Secret(key)] * 2
    assert key not in stage.world.report.said()

    # A second run needs no key, sends none, and changes nothing.
    stage.world.commands.clear()
    again = await stage.up(settings)
    assert again.healthy
    assert not stage.written()
    # Even an apply that is forced finds nothing to do on the hosts.
    await stage.provider.apply(settings, Change(Action.UPDATE, "again"), stage.world.writing())
    assert not stage.written()

    # Another setting is set without joining again.
    await stage.up(spec(default_tags=["tag:sky"], accept_routes=True))
    assert [command.stdin for command in stage.written()] == [None] * 2
    await tailnet.machines["app-1"].dial(db, 8080, 5)

    await stage.down(settings)
    assert await tailnet.state() == before
    assert not stage.world.kept.data


async def test_traffic_goes_on_without_the_server_and_what_is_wrong_is_said(
    stage: Stage, tailnet: TailnetWorld
) -> None:
    settings = spec()
    await stage.up(settings, await tailnet.key())
    db, app = await listens(tailnet, "db-1"), tailnet.machines["app-1"]
    await tailnet.stop_serving()
    await app.dial(db, 8080, 5)
    ctx = stage.world.reading()
    assert all(passage.passed for passage in await stage.provider.probe(settings, ctx))
    seen, change = await stage.look(settings)
    assert seen.healthy
    assert change.action is Action.NONE
    async with asyncio.timeout(60):
        while not (found := await stage.provider.diagnose(settings, ctx)):
            await asyncio.sleep(0.5)
    assert {finding.cause for finding in found} == {Cause.SERVICE_DOWN}
    assert "traffic between known members goes on" in found[0].words
    # Leaving needs the server: it is said, and can be repeated.
    with pytest.raises(errors.ControlUnreachableError, match="did not hear"):
        await stage.down(settings)
    await tailnet.serve()
    await stage.down(settings)
    assert not stage.world.kept.data


async def test_a_key_that_cannot_be_used_is_named_for_what_it_is(stage: Stage, tailnet: TailnetWorld) -> None:
    settings, before = spec(hosts=["app-1"]), await tailnet.state()
    with pytest.raises(errors.AuthKeyMissingError, match="TS_AUTHKEY is not set"):
        await stage.up(settings)
    wrong = "hskey-auth-0123456789ab-" + "x" * 64
    with pytest.raises(errors.AuthKeyInvalidError) as error:
        await stage.up(settings, wrong)
    assert "x" * 64 not in str(error.value)
    once = await tailnet.key("-e", "1h")
    await stage.up(spec(hosts=["db-1"]), once)
    with pytest.raises(errors.AuthKeyUsedError):
        await stage.up(settings, once)
    late = await tailnet.key("--reusable", "-e", "1s")
    await asyncio.sleep(1.1)
    with pytest.raises(errors.AuthKeyExpiredError):
        await stage.up(settings, late)
    assert (await tailnet.state())["app-1"] == before["app-1"]
    # A good one mends it.
    assert (await stage.up(settings, await tailnet.key())).healthy


async def test_tags_that_are_not_as_wanted_are_refused_and_changed_only_on_request(
    stage: Stage, tailnet: TailnetWorld
) -> None:
    right, wrong = [await tailnet.key("--tags", tag, "--reusable", "-e", "1h") for tag in ("tag:web", "tag:db")]
    settings = spec(hosts=["app-1"], default_tags=["tag:web"])
    with pytest.raises(errors.TagMismatchError, match="has the tags tag:db, wanted are tag:web"):
        await stage.up(settings, wrong)
    with pytest.raises(errors.TagMismatchError):
        await stage.up(settings, right)
    # Headscale 0.29 renews no member with tags, and says so; what it has forgotten may join.
    retagging = spec(hosts=["app-1"], default_tags=["tag:web"], retag=True, join_within=4)
    with pytest.raises(errors.MemberExpiredError, match="keeps an expired entry of app-1"):
        await stage.up(retagging, right)
    for node in await tailnet.nodes():
        await tailnet.headscale("nodes", "delete", "--identifier", str(node["id"]), "--force")
    seen = await stage.up(retagging, right)
    assert seen.outputs["tags"].value == {"app-1": ["tag:web"]}
    # Headscale refuses a key together with tags, whatever the policy.
    with pytest.raises(errors.TagsNotPermittedError, match="may not have the tags tag:db"):
        await stage.up(spec(hosts=["db-1"], default_tags=["tag:db"], tag_source="advertise"), wrong)


async def test_what_somebody_else_joined_is_used_as_it_is_and_left_as_it_was(
    stage: Stage, tailnet: TailnetWorld
) -> None:
    app = tailnet.machines["app-1"]
    by_hand = (
        f"tailscale up --login-server={SERVER} --auth-key={await tailnet.key()} --accept-dns=false --hostname=app-1"
    )
    await app.sh(by_hand)
    before = await tailnet.state()
    settings = spec(hosts=["app-1"], accept_routes=True)
    assert (await stage.up(settings)).healthy
    assert (await tailnet.state()) != before
    await stage.down(settings)
    assert await tailnet.state() == before
    # In another tailnet, it is not touched at all.
    with pytest.raises(errors.WrongTailnetError, match=f"is a member of {DOMAIN} at {SERVER} already"):
        await stage.up(spec(hosts=["app-1"], tailnet_domain="other.test"))
    assert await tailnet.state() == before


async def test_a_subnet_router_is_ready_when_its_routes_are_approved(stage: Stage, tailnet: TailnetWorld) -> None:
    before = await tailnet.state()
    settings = spec(advertise_routes={"db-1": ["10.9.0.0/24"]}, accept_routes=True, ready_within=4)
    with pytest.raises(errors.RoutesNotApprovedError, match=r"10\.9\.0\.0/24"):
        await stage.up(settings, await tailnet.key())
    node = next(node for node in await tailnet.nodes() if node["given_name"] == "db-1")
    await tailnet.headscale("nodes", "approve-routes", "--identifier", str(node["id"]), "--routes", "10.9.0.0/24")
    assert (await stage.up(settings)).healthy
    db, app = tailnet.machines["db-1"], tailnet.machines["app-1"]
    await db.sh("ip address add 10.9.0.1/24 dev lo")
    assert await app.pings("10.9.0.1")
    await stage.down(settings)
    await db.sh("ip address delete 10.9.0.1/24 dev lo")
    assert await tailnet.state() == before


async def test_it_stops_and_starts_without_a_key(stage: Stage, tailnet: TailnetWorld) -> None:
    settings = spec()
    await stage.up(settings, await tailnet.key())
    await stage.provider.stop(settings, stage.world.writing())
    assert (await tailnet.status("app-1"))["BackendState"] == "Stopped"
    seen, _ = await stage.look(settings)
    assert (seen.exists, seen.healthy) == (True, False)
    stage.world.variables = {}
    assert (await stage.provider.start(settings, stage.world.writing())).healthy
    # A host that leaves the settings leaves the tailnet.
    alone = await stage.up(spec(hosts=["app-1"]))
    assert alone.healthy
    assert (await tailnet.status("db-1"))["BackendState"] == "NeedsLogin"


async def test_a_killed_daemon_is_seen_named_and_repaired(stage: Stage, tailnet: TailnetWorld) -> None:
    settings = spec()
    await stage.up(settings, await tailnet.key())
    ctx = stage.world.reading()
    clock = stage.world.clock
    await tailnet.machines["db-1"].sh('kill -9 "$(cat /run/tailscaled.pid)"; rm /run/tailscaled.pid')
    cut = clock.monotonic()
    assert not any(passage.passed for passage in await stage.provider.probe(settings, ctx))
    seen_after = clock.monotonic() - cut
    found = await stage.provider.diagnose(settings, ctx)
    assert [(finding.cause, finding.where) for finding in found] == [(Cause.DAEMON_DOWN, "db-1")]
    steps = stage.provider.repairs(settings, ctx)
    assert (steps[0].name, steps[0].host) == ("reapply", "app-1")
    await stage.provider.repair(settings, Repair("reapply", "db-1"), stage.world.writing())
    async with asyncio.timeout(20):
        while not all(passage.passed for passage in await stage.provider.probe(settings, ctx)):
            await asyncio.sleep(0.1)
    print(f"daemon kill: seen after {seen_after:.1f} s, traffic again after {clock.monotonic() - cut:.1f} s")
    # The daemon itself sees nothing of it when the kernel no longer sends it anything.
    interface = "$(ip -o address show to $(tailscale ip -4) | awk '{print $2}')"
    for broken in (f"ip link set {interface} down", "ip route flush table 52"):
        await tailnet.machines["db-1"].sh(broken)
        failing = {one.source for one in await stage.provider.probe(settings, ctx) if not one.passed}
        assert "db-1" in failing, broken
        found = await stage.provider.diagnose(settings, ctx)
        assert [(one.cause, one.where) for one in found] == [(Cause.INTERFACE_MISSING, "db-1")]
        await stage.provider.repair(settings, Repair("reapply", "db-1"), stage.world.writing())
        async with asyncio.timeout(20):
            while not all(passage.passed for passage in await stage.provider.probe(settings, ctx)):
                await asyncio.sleep(0.1)
    # The harder step works as well, on a link that is well.
    await stage.provider.repair(settings, Repair("restart", "app-1"), stage.world.writing())
    async with asyncio.timeout(20):
        while (await tailnet.status("app-1"))["BackendState"] != "Running":
            await asyncio.sleep(0.1)
