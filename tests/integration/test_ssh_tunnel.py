"""SSH tunnels through a real sshd on loopback: traffic, changes, breaks, refusals, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.sshd import Sshd, free_port, make_key
from tests.support.tunnel import HERE, SSH, Session, Tunnel, connected, echo, said_back

from skyspan.contracts.watch import Cause, Repair
from skyspan.model.change import Action
from skyspan.model.error import CredentialsError, HostKeyError, NotReadyError, SpecError, StageError
from skyspan.model.secret import Secret
from skyspan.networks.sshtunnel.errors import (
    BindRefusedError,
    ForwardingForbiddenError,
    GatewayPortsError,
    PortTakenError,
    PortTakenOnHostError,
    TargetRefusedError,
)
from skyspan.transports.forwarder.control import StageForwarder, way_to
from skyspan.transports.keeper.identity import alive

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[[str], Sshd]]:
    made: list[Sshd] = []

    def make(extra: str = "") -> Sshd:
        made.append(Sshd(tmp_path / f"sshd{len(made)}", extra=extra))
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture
async def tunnel(tmp_path: Path, shared: Sshd) -> AsyncIterator[Tunnel]:
    made = Tunnel(tmp_path, shared)
    yield made
    await made.close()


@pytest.fixture
async def service() -> AsyncIterator[int]:
    async with echo() as port:
        yield port


async def through_proxy(proxy: int, name: str, port: int) -> tuple[int, bytes]:
    """The reply code of a SOCKS5 proxy, and what an echoing service says back through it."""
    async with connected(proxy) as (reader, writer):
        writer.write(b"\x05\x01\x00\x05\x01\x00\x03" + bytes([len(name)]) + name.encode() + port.to_bytes(2, "big"))
        answer = await reader.readexactly(12)
        assert answer[:2] == b"\x05\x00"
        if answer[3] != 0:
            return answer[3], b""
        writer.write(b"hello")
        writer.write_eof()
        return 0, await reader.read()


async def until(condition: Callable[[], Any], within_s: float = 20.0) -> float:
    """Wait until it holds; how long that took."""
    began = time.monotonic()
    async with asyncio.timeout(within_s):
        while True:
            holds = condition()
            if asyncio.iscoroutine(holds):
                holds = await holds
            if holds:
                return time.monotonic() - began
            await asyncio.sleep(0.02)


async def refused(tunnel: Tunnel, kind: type[StageError], forwards: dict[str, Any], **more: Any) -> StageError:
    """The error of an apply."""
    with pytest.raises(kind) as raised:
        await tunnel.up(tunnel.spec(forwards, **more))
    return raised.value


async def test_data_passes_in_all_three_kinds_and_nothing_is_left_after_two_destroys(
    tunnel: Tunnel, service: int
) -> None:
    before = tunnel.state()
    forwards = tunnel.local("db", service) | tunnel.remote("back", service) | tunnel.dynamic("proxy", service)
    spec = tunnel.spec(forwards)
    seen = await tunnel.up(spec)
    assert seen.healthy
    big = os.urandom(3_000_000)
    assert await said_back(tunnel.port("db"), big) == big
    assert await said_back(tunnel.port("back"), big) == big
    assert await through_proxy(tunnel.port("proxy"), "localhost", service) == (0, b"hello")
    assert await through_proxy(tunnel.port("proxy"), "localhost", free_port()) == (5, b"")
    assert seen.outputs["endpoints"].value["db"] == f"{HERE}:{tunnel.port('db')}"
    assert seen.outputs["proxies"].value == {"proxy": f"socks5h://{HERE}:{tunnel.port('proxy')}"}
    assert (await tunnel.look(spec))[1].action is Action.NONE
    assert all(passage.passed for passage in await tunnel.provider.probe(spec, tunnel.world.reading()))
    for _ in range(2):
        await tunnel.down()
        assert tunnel.state() == (0, set(), before[2])


async def test_a_change_of_some_forwards_keeps_the_sessions_of_the_others(tunnel: Tunnel, service: int) -> None:
    kept = tunnel.local("db", service) | tunnel.remote("back", service)
    await tunnel.up(tunnel.spec(kept | tunnel.local("old", service)))
    changed = tunnel.spec(kept | tunnel.dynamic("proxy", service), keepalive={"interval": 2, "count": 4})
    _, change = await tunnel.look(changed)
    assert {item.address.split(":")[0]: item.action for item in change.resources} == {
        "keepalive": Action.UPDATE,
        "dynamic proxy": Action.CREATE,
        "local old": Action.DESTROY,
    }
    processes = tunnel.processes()
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(connected(tunnel.port(name))) for name in ("db", "back", "old")]
        there, back, old = [Session(*streams) for streams in opened]
        assert [await session.works() for session in (there, back, old)] == [True, True, True]
        assert (await tunnel.up(changed)).healthy
        assert await there.works()
        assert await back.works()
        assert not await old.works(), "a forward that goes takes its sessions along"
    assert tunnel.listening() == {"db", "back", "proxy"}
    assert tunnel.processes() == processes
    state = await tunnel.forwarder.look()
    assert state is not None
    assert (state.connections, state.forwarding.keepalive_s) == (1, 2)


async def test_a_session_whose_connection_is_given_up_is_reset_and_not_ended_as_if_all_was_said(
    tunnel: Tunnel, service: int
) -> None:
    spec = tunnel.spec(tunnel.local("db", service))
    await tunnel.up(spec)
    async with connected(tunnel.port("db")) as streams:
        assert await Session(*streams).works()
        await tunnel.forwarder.reconnect()
        with pytest.raises(ConnectionResetError):
            await streams[0].read()
    await until(lambda: said_back(tunnel.port("db")))


async def test_a_forward_that_leads_nowhere_costs_the_others_no_session(tunnel: Tunnel) -> None:
    async with AsyncExitStack() as lives:
        kept = await lives.enter_async_context(echo())
        async with echo() as gone:
            proxy = tunnel.dynamic("proxy")
            spec = tunnel.spec(tunnel.local("db", kept) | tunnel.local("page", gone) | proxy)
            await tunnel.up(spec)
        session = Session(*await lives.enter_async_context(connected(tunnel.port("db"))))
        assert await session.works()
        passed = {one.target: one.passed for one in await tunnel.provider.probe(spec, tunnel.world.reading())}
        assert passed == {"db": True, "page": False, "proxy": True}
        for step in tunnel.provider.repairs(spec, tunnel.world.reading()):
            with pytest.raises(NotReadyError, match=rf"{step.name} on {step.host} cannot help: db carries traffic"):
                await tunnel.provider.repair(spec, step, tunnel.world.writing())
        assert await session.works()
    # With that one gone too nothing carries but the proxy, which answers by itself: that proves no connection.
    await tunnel.provider.repair(spec, Repair("reconnect", "box"), tunnel.world.writing())


async def test_no_secret_is_in_arguments_environment_or_files(tunnel: Tunnel, service: int) -> None:
    await tunnel.up(tunnel.spec(tunnel.local("db", service)))
    assert tunnel.host.key is not None
    secret = tunnel.host.key.reveal().splitlines()[2].encode()
    [pid] = tunnel.processes()
    found = [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
    files = [path for path in tunnel.home.rglob("*") if path.is_file()]
    assert not [text for text in (*found, *(path.read_bytes() for path in files)) if secret in text]
    assert {path.name for path in files} == {"identity", "lock", "log"}
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tunnel.folder.iterdir()}
    assert set(modes.values()) == {"0o600"} or modes.pop("forwarder.sock") == "0o700"
    assert set(modes.values()) == {"0o600"}
    assert oct(tunnel.folder.stat().st_mode & 0o777) == "0o700"


async def test_a_killed_forwarder_is_seen_named_and_started_again(tunnel: Tunnel, service: int) -> None:
    spec = tunnel.spec(tunnel.local("db", service) | tunnel.remote("back", service))
    await tunnel.up(spec)
    gone = tunnel.processes()
    tunnel.kill(signal.SIGKILL)
    await tunnel.until_dead(gone)
    began = time.monotonic()
    assert [passage.passed for passage in await tunnel.provider.probe(spec, tunnel.world.reading())] == [False, False]
    [finding] = await tunnel.provider.diagnose(spec, tunnel.world.reading())
    assert (finding.cause, finding.where) == (Cause.DAEMON_DOWN, "here")
    step = next(step for step in tunnel.provider.repairs(spec, tunnel.world.reading()) if step.host == finding.where)
    await tunnel.provider.repair(spec, step, tunnel.world.writing())
    await until(lambda: said_back(tunnel.port("back")))
    print(f"repaired {time.monotonic() - began:.2f} s after the first missed probe")
    assert await said_back(tunnel.port("db")) == b"hello"
    assert (await tunnel.look(spec))[1].action is Action.NONE


async def test_after_a_reboot_it_is_absent_and_up_brings_it_back_whoever_has_its_old_id(
    tunnel: Tunnel, service: int
) -> None:
    spec = tunnel.spec(tunnel.local("db", service))
    await tunnel.up(spec)
    gone = tunnel.processes()
    tunnel.kill(signal.SIGKILL)
    await tunnel.until_dead(gone)
    sleeper = await asyncio.create_subprocess_exec("sleep", "60")
    others = [
        {"pid": sleeper.pid, "began": "1", "boot": "this"},
        {"pid": sleeper.pid, "began": next(iter(gone.values())), "boot": "another"},
    ]
    try:
        for identity in others:
            (tunnel.folder / "identity").write_text(json.dumps(identity))
            seen, change = await tunnel.look(spec)
            assert (seen.exists, change.action) == (False, Action.CREATE)
            assert "does not run" in seen.reason
            assert (await tunnel.up(spec)).healthy
            gone = tunnel.processes()
            tunnel.kill(signal.SIGKILL)
            await tunnel.until_dead(gone)
        await tunnel.down()
        assert sleeper.returncode is None, "another process with the old id is left alone"
    finally:
        sleeper.kill()
        await sleeper.wait()


async def test_a_forwarder_whose_folder_is_gone_ends_by_itself_or_is_found_by_destroy(
    tunnel: Tunnel, service: int
) -> None:
    spec = tunnel.spec(tunnel.local("db", service))
    await tunnel.up(spec)
    first = tunnel.processes()
    shutil.rmtree(tunnel.folder)
    await tunnel.until_dead(first)
    assert not (await tunnel.look(spec))[0].exists
    await tunnel.up(spec)
    tunnel.kill(signal.SIGSTOP)
    second = tunnel.processes()
    shutil.rmtree(tunnel.folder)
    await tunnel.down()
    assert not any(alive(pid, since) for pid, since in second.items()), "even one that cannot end by itself"
    assert tunnel.state()[:2] == (0, set())


async def test_one_that_does_not_answer_is_unhealthy_and_is_replaced(tunnel: Tunnel, service: int) -> None:
    spec = tunnel.spec(tunnel.local("db", service))
    await tunnel.up(spec)
    stuck = tunnel.processes()
    tunnel.kill(signal.SIGSTOP)
    [finding] = await tunnel.provider.diagnose(spec, tunnel.world.reading())
    assert finding.cause is Cause.DAEMON_DOWN
    assert not await tunnel.provider.preflight(spec.model_dump(), tunnel.world.reading()), "its port is its own"
    with pytest.raises(NotReadyError, match="cannot reconnect"):
        await tunnel.provider.repair(spec, Repair("reconnect", "box"), tunnel.world.writing())
    await tunnel.provider.repair(spec, Repair("reapply", "here"), tunnel.world.writing())
    assert tunnel.processes().keys() != stuck.keys()
    assert await said_back(tunnel.port("db")) == b"hello"


async def test_stop_frees_every_port_and_start_brings_them_back(tunnel: Tunnel, service: int) -> None:
    spec = tunnel.spec(tunnel.local("db", service) | tunnel.remote("back", service))
    await tunnel.up(spec)
    for _ in range(2):
        await tunnel.provider.stop(spec, tunnel.world.writing())
    assert tunnel.state()[:2] == (0, set())
    assert (await tunnel.provider.start(spec, tunnel.world.writing())).healthy
    assert tunnel.listening() == {"db", "back"}


async def test_a_restarted_sshd_is_connected_to_again_while_local_ports_stay_ours(
    tmp_path: Path, own: Callable[[str], Sshd], service: int
) -> None:
    sshd = own("")
    tunnel = Tunnel(tmp_path, sshd)
    try:
        await tunnel.up(tunnel.spec(tunnel.local("db", service) | tunnel.remote("back", service)))
        sshd.stop()
        await until(lambda: tunnel.listening() == {"db"})
        assert await said_back(tunnel.port("db")) == b"", "nothing is taken that cannot be led on"
        sshd.start()
        began = time.monotonic()
        await until(lambda: said_back(tunnel.port("back")))
        print(f"reconnected {time.monotonic() - began:.2f} s after the sshd was back")
        assert await said_back(tunnel.port("db")) == b"hello"
    finally:
        await tunnel.close()


async def test_a_frozen_connection_is_given_up_and_its_stale_listener_cleared_away(
    tmp_path: Path, own: Callable[[str], Sshd], service: int
) -> None:
    sshd = own("")
    tunnel = Tunnel(tmp_path, sshd)
    try:
        forwards = tunnel.local("db", service) | tunnel.remote("back", service)
        spec = tunnel.spec(forwards, keepalive={"interval": 0.3, "count": 2})
        await tunnel.up(spec)
        await tunnel.box.close()
        await until(lambda: len(sshd.sessions()) == 1)
        [frozen] = sshd.sessions()
        began = time.monotonic()
        os.kill(frozen, signal.SIGSTOP)

        async def connections() -> int:
            state = await tunnel.forwarder.look()
            assert state is not None
            return state.connections if state.connected else 0

        await until(lambda: _at_least(connections, 2))
        print(f"silence noticed and reconnected in {time.monotonic() - began:.2f} s")
        await until(lambda: said_back(tunnel.port("back")))
        print(f"the listener that was left behind is cleared away after {time.monotonic() - began:.2f} s")
        assert frozen not in sshd.sessions()
        # The same when it is the forwarder that vanishes: the next one knows what was left behind.
        [frozen] = sshd.sessions()
        os.kill(frozen, signal.SIGSTOP)
        gone = tunnel.processes()
        tunnel.kill(signal.SIGKILL)
        await tunnel.until_dead(gone)
        await tunnel.forwarder.forward(spec.forwarding)
        await until(lambda: said_back(tunnel.port("back")))
        assert frozen not in sshd.sessions()
    finally:
        await tunnel.close()


async def _at_least(count: Callable[[], Any], wanted: int) -> bool:
    return bool(await count() >= wanted)


async def test_a_host_with_another_key_is_refused_and_told_loudly(
    tmp_path: Path, own: Callable[[str], Sshd], service: int
) -> None:
    sshd = own("")
    tunnel = Tunnel(tmp_path, sshd)
    try:
        spec = tunnel.spec(tunnel.local("db", service))
        await tunnel.up(spec)
        sshd.stop()
        for name in ("host_key", "host_key.pub"):
            (sshd.folder / name).unlink()
        changed = make_key(sshd.folder / "host_key")
        sshd.start()

        async def refuses() -> bool:
            findings = await tunnel.provider.diagnose(spec, tunnel.world.reading())
            return any(finding.cause is Cause.AUTHENTICATION and "CHANGED" in finding.words for finding in findings)

        await until(refuses)
        assert await said_back(tunnel.port("db")) == b""
        error = await refused(tunnel, HostKeyError, tunnel.local("db", service))
        assert "HAS CHANGED" in error.summary
        # Verified and pinned by the person, it is used; the old way of connecting is given up.
        tunnel.reach(replace(tunnel.host, host_key=changed))
        _, change = await tunnel.look(spec)
        assert change.resources[0].action is Action.REPLACE
        assert (await tunnel.up(spec)).healthy
    finally:
        await tunnel.close()


async def test_an_unknown_host_key_and_a_refused_login_leave_no_process(tunnel: Tunnel, service: int) -> None:
    before = tunnel.state()
    known = tunnel.host
    tunnel.reach(replace(known, host_key=None, known_hosts=str(tunnel.root / "none")))
    assert "unknown" in (await refused(tunnel, HostKeyError, tunnel.local("db", service))).summary
    make_key(tunnel.root / "stranger")
    tunnel.reach(replace(known, key=Secret((tunnel.root / "stranger").read_text())))
    error = await refused(tunnel, CredentialsError, tunnel.local("db", service))
    assert "authorized_keys" in error.hint
    assert tunnel.state() == before


async def test_a_port_that_is_taken_here_is_told_before_anything_is_started(tunnel: Tunnel, service: int) -> None:
    forwards = tunnel.local("db", service)
    with socket.create_server((HERE, tunnel.port("db"))):
        error = await refused(tunnel, PortTakenError, forwards)
        assert f"{HERE}:{tunnel.port('db')} is taken on this machine" in error.summary
        assert not tunnel.processes()
        [said] = await tunnel.provider.preflight({"through": "box", "forwards": forwards}, tunnel.world.reading())
        assert "is taken" in said.summary
    await tunnel.up(tunnel.spec(forwards))
    assert not await tunnel.provider.preflight({"forwards": forwards}, tunnel.world.reading()), "it is ours"


async def test_a_port_that_is_taken_on_the_host_is_told_with_who_has_it(tunnel: Tunnel, service: int) -> None:
    with socket.create_server((HERE, tunnel.port("back"))):
        error = await refused(tunnel, PortTakenOnHostError, tunnel.remote("back", service), ready_within=2)
    assert f"port {tunnel.port('back')} of box is taken" in error.summary
    assert f"process {os.getpid()}" in error.summary
    await tunnel.up(tunnel.spec(tunnel.remote("back", service)))


async def test_targets_that_refuse_or_have_no_address_are_told(tunnel: Tunnel) -> None:
    nobody = free_port()
    forwards = tunnel.local("db", nobody) | tunnel.remote("back", nobody) | tunnel.dynamic("proxy", nobody)
    forwards["named"] = {"local": {"listen": f"{HERE}:{tunnel.port('named')}", "to": "no-such-host.invalid:80"}}
    error = await refused(tunnel, TargetRefusedError, forwards, ready_within=4)
    assert str(nobody) in error.summary
    failing = [line for line in error.detail.splitlines() if line.startswith("FAIL")]
    assert [line.split(":")[0].split()[-1] for line in failing] == ["db", "back", "proxy", "named"]
    assert "box does not know a host called no-such-host.invalid" in failing[-1]
    unproven = tunnel.local("db", nobody, probe=False)
    assert (await tunnel.up(tunnel.spec(unproven))).healthy, "who says so is taken at his word"


async def test_an_sshd_that_forbids_forwarding_is_told_by_the_setting_that_does(
    tmp_path: Path, own: Callable[[str], Sshd], service: int
) -> None:
    tunnel = Tunnel(tmp_path, own("AllowTcpForwarding no\n"))
    try:
        error = await refused(tunnel, ForwardingForbiddenError, tunnel.local("db", service))
        assert "AllowTcpForwarding" in error.hint
        bound = await refused(tunnel, BindRefusedError, tunnel.remote("back", service))
        assert "AllowTcpForwarding" in bound.hint
    finally:
        await tunnel.close()


@pytest.mark.parametrize(("setting", "address"), [("no", "0.0.0.0"), ("yes", HERE)])
async def test_an_sshd_that_listens_elsewhere_than_asked_is_told(
    tmp_path: Path, own: Callable[[str], Sshd], service: int, setting: str, address: str
) -> None:
    tunnel = Tunnel(tmp_path, own(f"GatewayPorts {setting}\n"))
    try:
        forward = {"back": {"remote": {"listen": f"{address}:{tunnel.port('back')}", "to": f"{HERE}:{service}"}}}
        error = await refused(tunnel, GatewayPortsError, forward)
        assert "GatewayPorts clientspecified" in error.hint
    finally:
        await tunnel.close()


async def test_it_listens_and_leads_over_ipv6(tunnel: Tunnel, service: int) -> None:
    here = {"local": {"listen": f"[::1]:{tunnel.port('six')}", "to": f"[::1]:{tunnel.port('there')}"}}
    there = {"remote": {"listen": f"[::1]:{tunnel.port('there')}", "to": f"{HERE}:{service}"}}
    seen = await tunnel.up(tunnel.spec({"here": here, "there": there}))
    assert seen.healthy, "out over the local forward, back over the remote one"
    assert seen.outputs["endpoints"].value["here"] == f"[::1]:{tunnel.port('six')}"


async def test_it_leads_through_jump_hosts(tunnel: Tunnel, service: int) -> None:
    inner = replace(tunnel.host, name="inner", jump="box")
    hosts = {"box": tunnel.host, "inner": inner}
    tunnel.world.forwarder = tunnel.forwarder = StageForwarder(tunnel.folder, hosts, SSH)
    assert (await tunnel.up(tunnel.spec(tunnel.local("db", service), through="inner"))).healthy
    assert await said_back(tunnel.port("db")) == b"hello"
    with pytest.raises(SpecError, match="circle"):
        way_to("inner", {**hosts, "box": replace(tunnel.host, jump="inner")}, SSH)
