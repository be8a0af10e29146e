"""What machines and forwarders say about a tunnel, read and judged without any of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from skyspan.contracts.context import ReadContext
from skyspan.contracts.forwarding import (
    ForwarderState,
    Forwarding,
    ForwardState,
    NoForwarder,
    Trouble,
    TroubleKind,
)
from skyspan.contracts.transport import Completed, Connection
from skyspan.contracts.watch import Cause, Repair
from skyspan.model.change import Action
from skyspan.model.error import CredentialsError, HostKeyError, NotReadyError, StageError, UnreachableError
from skyspan.networks.sshtunnel.errors import cause_of, error_of
from skyspan.networks.sshtunnel.listening import Listening, parse_listening
from skyspan.networks.sshtunnel.observation import differences
from skyspan.networks.sshtunnel.provider import SshTunnelProvider
from skyspan.networks.sshtunnel.ready import blocked, checks, unready
from skyspan.networks.sshtunnel.spec import SshTunnelSpec
from skyspan.testing.provider_world import ProviderWorld, ScriptedTransport

SAID = """@tcp
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000
@user
1000
1024
@who
LISTEN 0 128 127.0.0.1:8080 0.0.0.0:* users:(("sshd",pid=77,fd=9))
LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=1,fd=3))
"""

REFUSED = Trouble(TroubleKind.BIND_REFUSED, "gw refused to listen")


def spec(kind: str = "remote", listen: str = "127.0.0.1:8080", **more: Any) -> SshTunnelSpec:
    return SshTunnelSpec.model_validate(
        {"through": "gw", "forwards": {"web": {kind: {"listen": listen, "to": "127.0.0.1:80", "probe": False}}}} | more
    )


def running(settings: SshTunnelSpec, now: ForwardState, **more: Any) -> ForwarderState:
    return replace(
        ForwarderState(settings.forwarding, current=True, connected=True, connections=1, forwards={"web": now}), **more
    )


def reading(tmp_path: Any, said: str) -> ReadContext:
    answer = ScriptedTransport(lambda command: Completed(0, said.encode()))
    return ProviderWorld(tmp_path, {None: answer, "gw": answer}).reading()


async def trouble(tmp_path: Any, settings: SshTunnelSpec, now: ForwardState, said: str = SAID) -> Trouble:
    found = unready(await checks(settings, running(settings, now), reading(tmp_path, said)))
    assert len(found) == 1
    assert found[0].trouble is not None
    return found[0].trouble


def test_who_listens_is_read_from_the_kernels_tables() -> None:
    found = parse_listening(SAID)
    assert sorted((str(at), port) for at, port in found.sockets) == [
        ("0.0.0.0", 22),
        ("127.0.0.1", 8080),
        ("::1", 8081),
    ]
    assert (found.root, found.unprivileged) == (False, 1024)
    assert found.owner(8080) == "sshd (process 77)"
    assert found.taken("127.0.0.1", 22), "who listens everywhere has every address"
    assert found.taken("0.0.0.0", 8080)
    assert not found.taken("::1", 8080)
    assert not found.as_asked("0.0.0.0", 8080), "one address is not all of them"


@pytest.mark.parametrize("text", ["", "@tcp\n 0: nonsense:1F90 0:0 0A\n@user\n\n@who\nLISTEN\n"])
def test_a_machine_that_says_nothing_or_nonsense_has_nothing(text: str) -> None:
    assert parse_listening(text) == Listening(frozenset(), {})


async def test_a_refusal_is_explained_by_what_listens_there(tmp_path: Any) -> None:
    found = await trouble(tmp_path, spec(), ForwardState(False, REFUSED))
    assert found.kind is TroubleKind.PORT_TAKEN_THERE
    assert "sshd (process 77)" in found.summary
    assert "ClientAliveInterval" in found.hint, "an sshd that holds a port may be left over from a broken connection"


async def test_a_refusal_is_explained_by_rights_then_by_settings(tmp_path: Any) -> None:
    low = await trouble(tmp_path, spec(listen="127.0.0.1:80"), ForwardState(False, REFUSED))
    assert low.kind is TroubleKind.PORT_FORBIDDEN
    high = await trouble(tmp_path, spec(listen="127.0.0.1:9000"), ForwardState(False, REFUSED))
    assert high.kind is TroubleKind.BIND_REFUSED
    assert "AllowTcpForwarding" in high.hint
    as_root = await trouble(
        tmp_path, spec(listen="127.0.0.1:80"), ForwardState(False, REFUSED), SAID.replace("@user\n1000", "@user\n0")
    )
    assert as_root.kind is TroubleKind.BIND_REFUSED


@pytest.mark.parametrize(
    ("listen", "words"),
    [("0.0.0.0:8080", "not on 0.0.0.0"), ("192.0.2.1:8080", "not on 192.0.2.1"), ("127.0.0.1:22", "everybody gets in")],
)
async def test_a_listener_elsewhere_than_asked_is_told(tmp_path: Any, listen: str, words: str) -> None:
    found = await trouble(tmp_path, spec(listen=listen), ForwardState(True))
    assert found.kind is TroubleKind.GATEWAY_PORTS
    assert words in found.summary


def test_ports_of_this_machine_that_are_taken_or_for_root_are_told_unless_they_are_ours() -> None:
    here = parse_listening(SAID)
    taken, low = spec("local"), spec("local", "127.0.0.1:81")
    assert [item.kind for item in blocked(taken.forwarding.forwards, here, None)] == [TroubleKind.PORT_TAKEN]
    assert [item.kind for item in blocked(low.forwarding.forwards, here, None)] == [TroubleKind.PORT_FORBIDDEN]
    ours = running(taken, ForwardState(True))
    assert not list(blocked(taken.forwarding.forwards, here, ours))
    trying = running(taken, ForwardState(False))
    assert [item.kind for item in blocked(taken.forwarding.forwards, here, trying)] == [TroubleKind.PORT_TAKEN]
    mute = replace(ours, forwarding=Forwarding("", ()), forwards={})
    assert not list(blocked(taken.forwarding.forwards, here, mute)), "one that does not answer may be who listens"
    assert not list(blocked(spec("remote").forwarding.forwards, here, None)), "those of the host are not asked here"


def test_differences_are_told_forward_by_forward() -> None:
    now = running(spec("local", "127.0.0.1:1111"), ForwardState(True))
    assert not differences(spec("local", "127.0.0.1:1111"), now)
    [moved] = differences(spec("local", "127.0.0.1:2222"), now)
    assert (moved.address, moved.action) == ("local web: 127.0.0.1:2222 -> 127.0.0.1:80", Action.REPLACE)
    [way] = differences(spec("local", "127.0.0.1:1111"), replace(now, current=False))
    assert "sessions through the tunnel end" in way.note
    [rhythm] = differences(spec("local", "127.0.0.1:1111", keepalive={"count": 9}), now)
    assert rhythm.address == "keepalive"


@pytest.mark.parametrize("kind", TroubleKind)
def test_every_trouble_has_an_error_of_its_own_and_a_cause(kind: TroubleKind) -> None:
    error = error_of(Trouble(kind, "words", "evidence", "advice"))
    assert (error.summary, error.detail, error.hint) == ("words", "evidence", "advice")
    assert type(StageError.restore(error.record())) is type(error), "it survives storage"
    assert cause_of(Trouble(kind, "")) in Cause
    known = {TroubleKind.HOST_KEY: HostKeyError, TroubleKind.CREDENTIALS: CredentialsError}
    assert type(error) is known.get(kind, type(error))


def test_the_gentlest_repair_comes_first_and_names_one_end(tmp_path: Any) -> None:
    ctx = ProviderWorld(tmp_path, {}).reading()
    steps = (Repair("reconnect", "gw"), Repair("reapply", "here"), Repair("restart", "here"))
    assert SshTunnelProvider().repairs(spec(), ctx) == steps


async def test_a_probe_that_is_reset_before_it_stands_still_hears_why(tmp_path: Any) -> None:
    class Quick(NoForwarder):
        async def look(self) -> ForwarderState | None:
            return running(settings, ForwardState(True, tried=4))

        async def heard(self, name: str, after: int, timeout_s: float) -> Trouble | None:
            assert (name, after) == ("web", 4)
            return Trouble(TroubleKind.TARGET_REFUSED, "nothing listens there")

    def reset(address: str, port: int) -> Connection:
        raise UnreachableError(f"cannot connect to {address} port {port}", detail="Connection reset by peer")

    settings = SshTunnelSpec.model_validate(
        {"through": "gw", "forwards": {"web": {"local": {"listen": "0.0.0.0:8080", "to": "db:80"}}}}
    )
    world = ProviderWorld(tmp_path, {None: ScriptedTransport(connect=reset)}, forwarder=Quick())
    [passage] = await SshTunnelProvider().probe(settings, world.reading())
    assert (passage.passed, passage.reason) == (False, "nothing listens there")


async def test_a_probe_of_what_is_not_connected_says_why(tmp_path: Any) -> None:
    class Down(NoForwarder):
        async def look(self) -> ForwarderState | None:
            away = Trouble(TroubleKind.UNREACHABLE, "gw did not answer")
            return running(spec("local"), ForwardState(True), connected=False, trouble=away)

    world = ProviderWorld(tmp_path, {}, forwarder=Down())
    [passage] = await SshTunnelProvider().probe(spec("local"), world.reading())
    assert (passage.source, passage.passed, passage.reason) == ("here", False, "gw did not answer")
    assert SshTunnelProvider().describe_link(spec())["allow"] == ["remote web: 127.0.0.1:8080 -> 127.0.0.1:80"]
    assert await NoForwarder().heard("web", 0, 0.1) is not None
    with pytest.raises(NotReadyError, match="nothing is forwarded here"):
        await NoForwarder().forward(Forwarding("gw", ()))
