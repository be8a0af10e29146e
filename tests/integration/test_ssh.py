"""SSH against a real sshd on loopback: the transport suite, trust, credentials, jumps, reuse and recovery."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.support.sshd import USER, free_port, make_key

from skyspan.contracts.host import Host
from skyspan.contracts.transport import Command, StopLadder, Stream
from skyspan.model.error import CredentialsError, HostKeyError, SpecError, ToolFailedError, UnreachableError
from skyspan.model.secret import Secret
from skyspan.testing.conformance.transport import Heard, TransportConformance, raised, shell
from skyspan.transports.dialler import HostDialler
from skyspan.transports.local import LocalTransport
from skyspan.transports.ssh import SshTransport
from skyspan.transports.ssh_connect import SshSettings

pytestmark = pytest.mark.integration

SETTINGS = SshSettings(connect_timeout_s=10)


def answers(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Sshd:
    """A real sshd with keys, settings and a port of its own."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    extra: str = ""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.host_key = make_key(self.folder / "host_key")
        public = make_key(self.folder / "user_key")
        (self.folder / "authorized_keys").write_text(public + "\n")
        self.start()

    def start(self) -> None:
        # Where sshd separates its privileges; the system's service makes it too.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        settings = self.folder / "sshd_config"
        settings.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.folder}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\nUsePAM no\nLogLevel ERROR\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n{self.extra}"
        )
        sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        assert sshd, "sshd is needed: install openssh-server"
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen([sshd, "-D", "-e", "-f", settings], stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        deadline = time.monotonic() + 20
        while not answers(self.port):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def sessions(self) -> list[int]:
        """The processes that serve connections."""
        assert self.process is not None
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in found.split()]

    def stop(self) -> None:
        """Stop it and every connection; stopped is success."""
        assert self.process is not None
        if self.process.returncode is not None:
            return
        for pid in (*self.sessions(), self.process.pid):
            subprocess.run(["kill", "-KILL", str(pid)], stderr=subprocess.DEVNULL)
        self.process.wait(10)

    def host(self, name: str = "box") -> Host:
        return Host(
            name,
            "127.0.0.1",
            port=self.port,
            user=USER,
            key=Secret((self.folder / "user_key").read_text()),
            host_key=self.host_key,
        )


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path / "own")
    yield server
    server.stop()


@pytest.fixture
async def dialler() -> AsyncIterator[HostDialler]:
    async with HostDialler(LocalTransport({}), SETTINGS) as made:
        yield made


class TestSshTransport(TransportConformance):
    @pytest.fixture
    async def transport(self, sshd: Sshd) -> AsyncIterator[SshTransport]:
        made = SshTransport(sshd.host(), SETTINGS)
        yield made
        await made.close()


TRUE = Command(("true",))


async def run(host: Host, command: Command = TRUE, settings: SshSettings = SETTINGS) -> str:
    transport = SshTransport(host, settings)
    try:
        return (await transport.run(command)).text()
    finally:
        await transport.close()


async def test_an_unknown_host_key_is_refused_with_how_to_accept_it(sshd: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    host = replace(sshd.host(), host_key=None, known_hosts=str(known))
    error = await raised(run(host), HostKeyError)
    assert "unknown" in str(error)
    assert "SHA256:" in str(error)
    assert f'host_key: "{sshd.host_key}"' in str(error)
    line = next(line.strip() for line in str(error).splitlines() if line.strip().startswith("["))
    known.write_text(line + "\n")
    assert await run(host, shell("echo in")) == "in\n"


async def test_a_changed_host_key_is_refused_loudly(sshd: Sshd, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    error = await raised(run(replace(sshd.host(), host_key=other)), HostKeyError)
    assert "HAS CHANGED" in str(error)
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{sshd.port} {other}\n")
    error = await raised(run(replace(sshd.host(), host_key=None, known_hosts=str(known))), HostKeyError)
    assert "HAS CHANGED" in str(error)
    assert str(known) in str(error)


async def test_a_key_of_another_kind_than_the_pinned_one_is_a_changed_key(sshd: Sshd, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other", "ecdsa")
    assert "HAS CHANGED" in str(await raised(run(replace(sshd.host(), host_key=other)), HostKeyError))


async def test_the_users_known_hosts_serve_when_the_host_names_none(sshd: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n")
    host = replace(sshd.host(), host_key=None)
    assert await run(host, shell("echo in"), replace(SETTINGS, known_hosts=known)) == "in\n"
    await raised(run(host), HostKeyError)


async def test_a_host_key_may_be_pasted_from_ssh_keyscan(sshd: Sshd) -> None:
    assert (
        await run(replace(sshd.host(), host_key=f"[127.0.0.1]:22 {sshd.host_key} comment"), shell("echo in")) == "in\n"
    )


@pytest.mark.parametrize("text", ["", "nonsense", "ssh-ed25519 AAAAnonsense"])
async def test_a_pinned_key_that_is_none_is_an_error(sshd: Sshd, text: str) -> None:
    assert "no SSH public key" in str(await raised(run(replace(sshd.host(), host_key=text)), HostKeyError))


async def test_a_wrong_user_key_is_a_credentials_error(sshd: Sshd, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    host = replace(sshd.host(), key=Secret((tmp_path / "stranger").read_text()))
    error = await raised(run(host), CredentialsError)
    assert "authorized_keys" in str(error)


async def test_no_key_at_all_is_a_credentials_error(sshd: Sshd) -> None:
    await raised(run(replace(sshd.host(), key=None)), CredentialsError)


async def test_a_key_that_cannot_be_used_is_a_credentials_error(sshd: Sshd, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked], check=True)
    for host in (
        replace(sshd.host(), key=Secret("no key")),
        replace(sshd.host(), key=None, key_file=str(locked)),
        replace(sshd.host(), key=None, key_file="/no/such/key"),
    ):
        assert host.name in str(await raised(run(host), CredentialsError))


async def test_a_key_file_and_identities_of_the_user_serve(sshd: Sshd, tmp_path: Path) -> None:
    path = sshd.folder / "user_key"
    bare = replace(sshd.host(), key=None)
    assert await run(replace(bare, key_file=str(path)), shell("echo in")) == "in\n"
    settings = replace(SETTINGS, identities=(tmp_path / "absent", path))
    assert await run(bare, shell("echo in"), settings) == "in\n"


async def test_an_agent_serves_when_there_is_no_key(sshd: Sshd, tmp_path: Path) -> None:
    address = str(tmp_path / "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.DEVNULL)
    try:
        while not Path(address).exists():
            await asyncio.sleep(0.01)
        subprocess.run(
            ["ssh-add", "-q", sshd.folder / "user_key"], check=True, env={**os.environ, "SSH_AUTH_SOCK": address}
        )
        settings = replace(SETTINGS, agent=address)
        assert await run(replace(sshd.host(), key=None), shell("echo in"), settings) == "in\n"
    finally:
        agent.terminate()
        agent.wait(10)


async def test_a_host_that_refuses_is_unreachable_and_worth_a_retry(sshd: Sshd) -> None:
    error = await raised(run(replace(sshd.host(), port=free_port())), UnreachableError)
    assert "refused" in str(error)
    assert isinstance(error, UnreachableError)
    assert error.retry.value == "later"


async def test_a_host_that_says_nothing_is_unreachable(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = replace(sshd.host(), port=silent.getsockname()[1])
        error = await raised(run(host, settings=replace(SETTINGS, connect_timeout_s=0.3)), UnreachableError)
    assert "0.3 s" in str(error)


async def test_one_connection_serves_many_commands(own_sshd: Sshd) -> None:
    transport = SshTransport(own_sshd.host(), SETTINGS)
    await asyncio.gather(*(transport.run(shell("sleep 0.1")) for _ in range(20)))
    await transport.run(TRUE)
    assert len(own_sshd.sessions()) == 1
    await transport.close()


async def test_a_connection_that_died_between_commands_is_made_anew(own_sshd: Sshd) -> None:
    transport = SshTransport(own_sshd.host(), SETTINGS)
    assert (await transport.run(TRUE)).ok
    own_sshd.stop()
    own_sshd.start()
    assert (await transport.run(TRUE)).ok
    await transport.close()


async def test_a_connection_that_breaks_under_a_command_is_an_error_and_not_repeated(own_sshd: Sshd) -> None:
    transport = SshTransport(own_sshd.host(), SETTINGS)
    heard = Heard()
    running = asyncio.ensure_future(transport.run(shell("echo ready; sleep 2"), heard))
    await heard.until(b"ready")
    own_sshd.stop()
    error = await raised(running, UnreachableError)
    assert "broke while" in str(error)
    assert heard.data.popitem()
    error = await raised(transport.run(TRUE), UnreachableError)
    assert "refused" in str(error)
    await transport.close()


async def test_what_a_broken_connection_left_running_is_stopped_before_anything_else_starts(own_sshd: Sshd) -> None:
    transport = SshTransport(own_sshd.host(), SETTINGS)
    heard = Heard()
    command = shell("trap '' INT PIPE; echo child $$; while :; do sleep 0.05; done", ladder=StopLadder(0.5, 0.5))
    running = asyncio.ensure_future(transport.run(command, heard))
    await heard.until(b"child")
    own_sshd.stop()
    await raised(running, UnreachableError)
    status = Path(f"/proc/{int(heard.data[Stream.OUT].split()[1])}/status")
    assert "State:\tZ" not in status.read_text()
    own_sshd.start()
    assert (await transport.run(TRUE)).ok
    assert not status.exists() or "State:\tZ" in status.read_text()
    await transport.close()


async def test_a_silent_connection_is_given_up_by_keepalive(own_sshd: Sshd) -> None:
    transport = SshTransport(own_sshd.host(), replace(SETTINGS, keepalive_s=0.2, keepalive_count=2))
    heard = Heard()
    running = asyncio.ensure_future(transport.run(shell("echo ready $$; exec sleep 1000"), heard))
    await heard.until(b"ready")
    left = heard.data[Stream.OUT].split()[1].decode()
    frozen = own_sshd.sessions()
    for pid in frozen:
        subprocess.run(["kill", "-STOP", str(pid)], check=True)
    await raised(running, UnreachableError)
    for pid in frozen:
        subprocess.run(["kill", "-CONT", str(pid)], check=True)
    await transport.close()
    # Nobody who could have stopped it is left, and the next connection, which would, is not made.
    subprocess.run(["kill", "-KILL", left], check=False)


async def test_cancelling_while_the_host_is_gone_still_cancels(own_sshd: Sshd) -> None:
    transport = SshTransport(own_sshd.host(), SETTINGS)
    heard = Heard()
    running = asyncio.ensure_future(transport.run(shell("echo ready; sleep 3", ladder=StopLadder(5, 5)), heard))
    await heard.until(b"ready")
    own_sshd.stop()
    running.cancel()
    await raised(running, asyncio.CancelledError)
    await transport.close()


async def test_few_sessions_on_the_server_still_let_a_command_be_stopped(tmp_path: Path) -> None:
    server = Sshd(tmp_path / "few", extra="MaxSessions 1\n")
    transport = SshTransport(server.host(), SETTINGS)
    try:
        heard = Heard()
        command = shell("trap 'echo saved; exit 0' INT; echo ready; while :; do sleep 0.05; done")
        running = asyncio.ensure_future(transport.run(command, heard))
        await heard.until(b"ready")
        error = await raised(transport.run(TRUE), UnreachableError)
        assert "MaxSessions" in str(error)
        running.cancel()
        await raised(running, asyncio.CancelledError)
        assert "saved" in str(heard.data)
    finally:
        await transport.close()
        server.stop()


async def test_what_a_login_shell_prints_is_not_the_commands_output(tmp_path: Path) -> None:
    server = Sshd(tmp_path / "noisy", extra='ForceCommand echo "welcome"; eval "$SSH_ORIGINAL_COMMAND"\n')
    try:
        assert await run(server.host(), shell("echo mine")) == "mine\n"
    finally:
        server.stop()


async def test_an_account_without_a_shell_is_an_error_with_its_words(tmp_path: Path) -> None:
    server = Sshd(tmp_path / "closed", extra='ForceCommand echo "no logins here"; exit 5\n')
    try:
        error = await raised(run(server.host()), ToolFailedError)
        assert "no logins here" in str(error)
    finally:
        server.stop()


async def test_a_host_is_reached_through_others(sshd: Sshd, own_sshd: Sshd, dialler: HostDialler) -> None:
    hosts = {
        "outer": sshd.host("outer"),
        "inner": replace(own_sshd.host("inner"), jump="outer"),
        "innermost": replace(sshd.host("innermost"), jump="inner"),
    }
    view = dialler.for_hosts(hosts)
    completed = await view.reach("innermost").run(shell("echo $SSH_CONNECTION"))
    assert completed.text().split()[3] == str(sshd.port)
    assert len(own_sshd.sessions()) == 1
    gone = dialler.for_hosts({**hosts, "inner": replace(own_sshd.host("inner"), port=free_port(), jump="outer")})
    assert "refused" in str(await raised(gone.reach("inner").run(Command(("true",))), UnreachableError))


async def test_views_of_a_dialler_share_connections(own_sshd: Sshd, dialler: HostDialler) -> None:
    first, second = (dialler.for_hosts({"box": own_sshd.host()}) for _ in range(2))
    assert first.reach("box") is second.reach("box")
    assert (await first.reach("box").run(Command(("true",)))).ok
    assert len(own_sshd.sessions()) == 1
    changed = dialler.for_hosts({"box": replace(own_sshd.host(), user="other")})
    assert changed.reach("box") is not first.reach("box")


async def test_an_unnamed_host_and_a_circle_of_jumps_are_errors(sshd: Sshd, dialler: HostDialler) -> None:
    view = dialler.for_hosts({"a": replace(sshd.host("a"), jump="b"), "b": replace(sshd.host("b"), jump="a")})
    with pytest.raises(SpecError, match="circle"):
        view.reach("a")
    with pytest.raises(SpecError, match="there is no host bb") as caught:
        view.reach("bb")
    assert "did you mean b?" in caught.value.hint
    assert view.reach(None).name == "here"
