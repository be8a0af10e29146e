"""The state endpoint by HTTP on a real store: any requests of two tools under two leases, against a small model.

Whatever comes in whatever order, wrong credentials, lies about lengths and restarts between: what was told to be kept
is kept, sealed, and nothing else is.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from skyspan.contracts.store import DeploymentRecord, Lease
from skyspan.model.address import DeploymentAddress
from skyspan.model.lifecycle import Verb
from skyspan.model.secret import Secret
from skyspan.providers.terraform.endpoint.server import Endpoint, serving
from skyspan.providers.terraform.endpoint.vault import VERSIONS, Vault, read_index, read_lock, version_name
from skyspan.providers.terraform.holder import Holder, this_machine
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store.sql import open_store
from skyspan.testing.fake_clock import FakeClock

LIMIT = 2_000
CANARY = "canary-5f1c9b"
STAGE = DeploymentAddress("default", "shop").stage("cloud")
BOTH = st.sampled_from(("newest", "zombie"))
"""Whom a request goes to: the engine that holds the lease, or the one that held it before and does not know."""

who = st.sampled_from(("a", "b"))
nobody_too = st.sampled_from(("a", "b", ""))


def state(serial: int, lineage: str, note: str) -> bytes:
    return json.dumps({"version": 4, "serial": serial, "lineage": lineage, "secret": CANARY, "note": note}).encode()


def lock(identity: str) -> bytes:
    return json.dumps({"ID": identity, "Who": CANARY, "Info": ""}).encode()


@dataclass
class View:
    """What one engine's endpoint has to think, and whether its lease is gone."""

    epoch: int
    state: bytes | None
    lock: tuple[str, int] | None
    fenced: bool = False
    archived: bool = False

    def at_lock(self, identity: str) -> int:
        if self.lock and self.lock[0] != identity:
            return 423
        if self.lock:
            return 200 if self.lock[1] == self.epoch else 409
        return 409 if self.fenced else 200

    def at_unlock(self, identity: str) -> int:
        if self.lock is None:
            return 200 if identity else 400
        if self.lock != (identity, self.epoch):
            return 423
        return 409 if self.fenced else 200

    def at_post(self, identity: str, data: bytes) -> int:
        if self.lock is None:
            return 409
        if self.lock != (identity, self.epoch):
            return 423
        if self.state is None:
            return 409 if self.fenced else 200
        if self.state == data:
            return 200
        old, new = json.loads(self.state), json.loads(data)
        newer = new["lineage"] == old["lineage"] and new["serial"] > old["serial"]
        return 409 if self.fenced or not newer else 200


class TwoEngines(RuleBasedStateMachine):
    """Engines on one store; the model is what the endpoints have to think and what has to be kept."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.AsyncExitStack()
        self._loop = asyncio.new_event_loop()
        self._folder = tempfile.TemporaryDirectory()
        self._home = Path(self._folder.name)
        self._clock = FakeClock()
        self._store = open_store(str(self._home / "skyspan.db"), EnvelopeSealer(self._home), self._clock)
        self._now = 1_000.0
        self._servers: dict[str, Endpoint] = {}
        self._views: dict[str, View] = {}
        self._state: bytes | None = None
        self._lock: tuple[str, int] | None = None
        self._versions: dict[str, bytes] = {}
        self._broken = 0
        self.run(self._store.save_deployment(DeploymentRecord(STAGE.deployment, folder="/")))
        self.take_over()

    def teardown(self) -> None:
        self.run(self._stack.aclose())
        self.run(self._store.close())
        self._loop.close()
        for path in self._home.iterdir():
            assert not path.is_file() or CANARY.encode() not in path.read_bytes(), f"in clear in {path.name}"
        self._folder.cleanup()

    def run(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)

    # What engines do.

    @rule()
    def take_over(self) -> None:
        """The lease runs out and another engine gets it; the one before does not know and goes on serving."""
        self._now += 100
        wanted = Lease(STAGE.deployment, f"engine-{self._now}", 0, self._now + 50, "run", Verb.UP)
        epoch = self.run(self._store.acquire(wanted, self._now)).epoch
        if "newest" in self._servers:
            self._servers["zombie"], self._views["zombie"] = self._servers["newest"], self._views["newest"]
            self._views["zombie"].fenced = True
        self._open(epoch)

    @rule()
    def restart(self) -> None:
        """The engine's endpoint is served anew, under the same lease."""
        self._open(self._views["newest"].epoch)

    @precondition(lambda self: self._lock is not None)
    @rule()
    def break_the_lock(self) -> None:
        """Its holder is known to be dead."""
        view = self._views["newest"]
        held = self.run(read_lock(self._kept()))
        self.run(self._vault(view.epoch).break_lock(held, "dead"))
        self._lock, self._broken = None, min(self._broken + 1, VERSIONS)
        self._open(view.epoch)

    def _open(self, epoch: int) -> None:
        endpoint = self.run(self._stack.enter_async_context(serving(limit=LIMIT)))
        held = self.run(read_lock(self._kept()))
        endpoint.open_for_writing(self._state, epoch, self._vault(epoch).perform, held.lock if held else None)
        self._servers["newest"] = endpoint
        self._views["newest"] = View(epoch, self._state, self._lock)

    def _kept(self, epoch: int = 0) -> Any:
        return self._store.kept(STAGE, epoch)

    def _vault(self, epoch: int) -> Vault:
        return Vault(self._kept(epoch), self._clock, Holder("me", this_machine()), epoch)

    # What tools do.

    @rule(where=BOTH, identity=who)
    def take(self, where: str, identity: str) -> None:
        view = self._view(where)
        wanted = view.at_lock(identity)
        status, body = self.ask(where, "LOCK", lock(identity))
        assert status == wanted
        if status == 423:
            assert view.lock is not None
            assert json.loads(body)["ID"] == view.lock[0], "the holder is told"
        if status == 200 and view.lock is None:
            self._lock = view.lock = (identity, view.epoch)

    @rule(where=BOTH, identity=nobody_too, chunked=st.booleans())
    def free(self, where: str, identity: str, chunked: bool) -> None:
        view = self._view(where)
        wanted = view.at_unlock(identity)
        status, _ = self.ask(where, "UNLOCK", lock(identity) if identity else b"", chunked=chunked)
        assert status == wanted
        if status == 200 and view.lock is not None:
            self._lock = view.lock = None

    @rule(
        where=BOTH,
        identity=nobody_too,
        serial=st.integers(0, 20),
        lineage=st.sampled_from(("one", "one", "one", "two")),
        chunked=st.booleans(),
    )
    def write(self, where: str, identity: str, serial: int, lineage: str, chunked: bool) -> None:
        self._write(where, identity, state(serial, lineage, identity), chunked)

    @precondition(lambda self: self._lock is not None)
    @rule(where=BOTH, step=st.integers(1, 3))
    def write_on(self, where: str, step: int) -> None:
        """As a tool does that has the lock: the next state."""
        assert self._lock is not None
        self._next(where, self._lock[0], step)

    def _next(self, where: str, identity: str, step: int = 1) -> None:
        serial = json.loads(self._state)["serial"] + step if self._state else step
        lineage = json.loads(self._state)["lineage"] if self._state else "one"
        self._write(where, identity, state(serial, lineage, "next"), chunked=False)

    def _write(self, where: str, identity: str, data: bytes, chunked: bool) -> None:
        view = self._view(where)
        wanted = view.at_post(identity, data)
        query = f"?ID={identity}" if identity else ""
        status, _ = self.ask(where, "POST", data, query=query, chunked=chunked)
        assert status == wanted
        if status == 200 and view.state != data:
            if view.state is not None and not view.archived:
                name = version_name(json.loads(view.state)["serial"])
                self._versions.pop(name, None)
                self._versions[name] = view.state
                self._versions = dict(list(self._versions.items())[-VERSIONS:])
                view.archived = True
            self._state = view.state = data

    @rule(where=BOTH, identity=who, writes=st.integers(0, 3))
    def work(self, where: str, identity: str, writes: int) -> None:
        """A whole command of a tool, as far as it is let."""
        self.take(where, identity)
        for _ in range(writes):
            self._next(where, identity)
        self.free(where, identity, chunked=False)

    # What nobody may do.

    @rule(
        where=BOTH,
        how=st.sampled_from(
            ("intrude", "ask_something_else", "break_off", "exaggerate", "babble", "go_elsewhere", "read")
        ),
        method=st.sampled_from(("LOCK", "POST", "UNLOCK")),
        chunked=st.booleans(),
        amount=st.integers(1, 60),
    )
    def misbehave(self, where: str, how: str, method: str, chunked: bool, amount: int) -> None:
        view, query = self._view(where), "?ID=a"
        if how == "intrude":  # With no credentials, or those of another attempt's endpoint.
            others = [item for item in self._servers.values() if item is not self._server(where)]
            for foreign in (None, *others):
                for each in (method, "GET"):
                    status, body = self.ask(where, each, lock("a"), query=query, credentials=_basic(foreign))
                    assert (status, CANARY.encode() in body) == (401, False)
        elif how == "ask_something_else":
            for other in ("DELETE", "PUT", "HEAD"):
                assert self.ask(where, other, lock("a"), query=query)[0] == 405
        elif how == "break_off":
            data = state(30, "one", "cut off")
            assert self.ask(where, method, data, query=query, chunked=chunked, cut=amount)[0] == 400
        elif how == "exaggerate":
            data = state(30, "one", "").ljust(LIMIT + amount)
            assert self.ask(where, "POST", data, query=query, chunked=chunked)[0] == 413
        elif how == "babble":
            nonsense = (b"", b"nonsense", b"[]", b'{"serial": 1}', state(1, "one", "")[:-1])[amount % 5]
            held = view.lock == ("a", view.epoch)
            assert self.ask(where, "POST", nonsense, query=query)[0] == (400 if held else 423 if view.lock else 409)
        elif how == "go_elsewhere":
            assert self.ask(where, "GET", path="/other")[0] == 404
        else:
            assert self.ask(where, "GET") == ((200, view.state) if view.state else (404, b""))

    # What has to be so at any time.

    @invariant()
    def what_was_told_is_kept_and_nothing_else(self) -> None:
        kept = self._kept()
        assert self.run(kept.get("state")) == self._state
        held = self.run(read_lock(kept))
        assert (held and (held.lock.id, held.lock.epoch)) == self._lock
        index = self.run(read_index(kept))
        assert [entry["name"] for entry in index if "name" in entry] == list(self._versions)
        assert len([entry for entry in index if "name" not in entry]) == self._broken
        for name, data in self._versions.items():
            assert self.run(kept.get(name)) == data

    def _server(self, where: str) -> Endpoint:
        return self._servers.get(where, self._servers["newest"])

    def _view(self, where: str) -> View:
        return self._views.get(where, self._views["newest"])

    def ask(self, where: str, method: str, body: bytes = b"", **more: Any) -> tuple[int, bytes]:
        """Status and body of the answer, on a connection of its own."""
        answer: tuple[int, bytes] = self.run(_ask(self._server(where), method, body, **more))
        return answer


async def _ask(
    endpoint: Endpoint,
    method: str,
    body: bytes,
    *,
    query: str = "",
    path: str = "/state",
    chunked: bool = False,
    cut: int = 0,
    credentials: str | None = None,
) -> tuple[int, bytes]:
    port = int(str(endpoint.environment(locking=True)["TF_HTTP_ADDRESS"]).split(":")[2].split("/")[0])
    head = f"{method} {path}{query} HTTP/1.1\r\nHost: x\r\nAuthorization: {credentials or _basic(endpoint)}\r\n"
    if chunked:
        head += "Transfer-Encoding: chunked\r\n\r\n"
        parts = [body[at : at + 100] for at in range(0, len(body), 100)]
        body = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts) + b"0\r\n\r\n"
    else:
        head += f"Content-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + body[: len(body) - cut])
    writer.write_eof()
    said = b""
    with contextlib.suppress(ConnectionResetError):  # It does not read a body that it refuses.
        said = await reader.read()
    writer.close()
    top, _, rest = said.partition(b"\r\n\r\n")
    return int(top.split(b" ", 2)[1]), rest


def _basic(endpoint: Endpoint | None) -> str:
    if endpoint is None:
        return "Basic bm8="
    environment = endpoint.environment(locking=True)
    password = environment["TF_HTTP_PASSWORD"]
    assert isinstance(password, Secret)
    return "Basic " + base64.b64encode(f"{environment['TF_HTTP_USERNAME']}:{password.reveal()}".encode()).decode()


TestTwoEngines = TwoEngines.TestCase
TestTwoEngines.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
