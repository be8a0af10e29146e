"""The state endpoint over its socket: strict HTTP, credentials, answers only after what they tell is durable."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest

from skyspan.model.error import FencedError, StoreUnavailableError
from skyspan.model.secret import Secret
from skyspan.providers.terraform.endpoint.ledger import Deed
from skyspan.providers.terraform.endpoint.server import Endpoint, serving
from skyspan.providers.terraform.endpoint.vault import VERSIONS, Vault, read_index, read_lock
from skyspan.providers.terraform.holder import Holder, this_machine
from skyspan.testing.fake_clock import FakeClock
from skyspan.testing.provider_world import MemoryKept

HOLDER = Holder("me", this_machine())
LOCK = json.dumps({"ID": "a"}).encode()


def state(serial: int) -> bytes:
    return json.dumps({"version": 4, "serial": serial, "lineage": "one"}).encode()


async def talk(endpoint: Endpoint, raw: bytes) -> bytes:
    port = int(str(endpoint.environment(locking=True)["TF_HTTP_ADDRESS"]).split(":")[2].split("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    writer.write_eof()
    said = await reader.read()
    writer.close()
    return said


def request(endpoint: Endpoint, method: str, body: bytes = b"", query: str = "", extra: str = "") -> bytes:
    environment = endpoint.environment(locking=True)
    password = environment["TF_HTTP_PASSWORD"]
    assert isinstance(password, Secret)
    token = base64.b64encode(f"{environment['TF_HTTP_USERNAME']}:{password.reveal()}".encode()).decode()
    head = f"{method} /state{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {token}\r\n{extra}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def status(said: bytes) -> int:
    return int(said.split(b" ", 2)[1])


async def test_a_command_locks_writes_and_unlocks_on_one_connection() -> None:
    kept = MemoryKept()
    async with serving() as endpoint:
        endpoint.open_for_writing(None, 1, Vault(kept, FakeClock(), HOLDER, 1).perform)
        raw = request(endpoint, "LOCK", LOCK) + request(endpoint, "POST", state(1), "?ID=a")
        said = await talk(endpoint, raw + request(endpoint, "GET") + request(endpoint, "UNLOCK", LOCK))
        assert said.count(b"HTTP/1.1 200 OK") == 4
        assert said.count(state(1)) == 1
    assert kept.data == {"state": state(1)}


async def test_without_the_attempts_credentials_nothing_is_told() -> None:
    async with serving() as endpoint, serving() as other:
        endpoint.show(state(1))
        assert status(await talk(endpoint, request(endpoint, "GET"))) == 200
        refused = await talk(endpoint, request(other, "GET"))
        assert (status(refused), b"serial" in refused) == (401, False)
        assert status(await talk(endpoint, b"GET /state HTTP/1.1\r\n\r\n")) == 401


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /state HTTP/2\r\n\r\n", 400),
        (b"GET /state HTTP/1.1\r\nA: 1\r\nA: 2\r\n\r\n", 400),
        (b"GET /state HTTP/1.1\r\nA : 1\r\n\r\n", 400),
        (b"GET /state HTTP/1.1\r\nA: " + b"x" * 20_000 + b"\r\n\r\n", 400),
        (b"GET /state HT", 400),
    ],
)
async def test_what_is_no_strict_request_is_refused(raw: bytes, wanted: int) -> None:
    async with serving() as endpoint:
        assert status(await talk(endpoint, raw)) == wanted


async def test_a_body_needs_its_length_and_a_place() -> None:
    async with serving() as endpoint:
        untold = request(endpoint, "POST").replace(b"Content-Length: 0\r\n", b"")
        assert status(await talk(endpoint, untold)) == 411
        big = request(endpoint, "POST").replace(b"Content-Length: 0", b"Content-Length: 999999999999")
        assert status(await talk(endpoint, big)) == 413
        assert status(await talk(endpoint, request(endpoint, "GET").replace(b"/state", b"/else"))) == 404


def chunked(endpoint: Endpoint, method: str, body: bytes, query: str = "") -> bytes:
    head = request(endpoint, method, query=query).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return head + body


async def test_a_body_may_come_in_chunks() -> None:
    kept = MemoryKept()
    async with serving() as endpoint:
        endpoint.open_for_writing(None, 1, Vault(kept, FakeClock(), HOLDER, 1).perform)
        half, rest = state(1)[:10], state(1)[10:]
        body = b"a\r\n" + half + f"\r\n{len(rest):X}\r\n".encode() + rest + b"\r\n0\r\n\r\n"
        raw = request(endpoint, "LOCK", LOCK) + chunked(endpoint, "POST", body, "?ID=a")
        assert (await talk(endpoint, raw)).count(b"HTTP/1.1 200 OK") == 2
        assert kept.data["state"] == state(1)
        # Terraform's force-unlock names no lock at all.
        assert status(await talk(endpoint, chunked(endpoint, "UNLOCK", b"0\r\n\r\n"))) == 423


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"", 400),
        (b"5\r\nab", 400),
        (b"2\r\nabc\r\n0\r\n\r\n", 400),
        (b"-1\r\n", 400),
        (b"0x1\r\na\r\n0\r\n\r\n", 400),
        (b"0\r\nTrailer: x\r\n\r\n", 400),
        (b"60\r\n" + b"x" * 96 + b"\r\n5\r\nxxxxx\r\n0\r\n\r\n", 413),
        (b"ffffffff\r\n", 413),
    ],
)
async def test_chunks_that_lie_are_refused(body: bytes, wanted: int) -> None:
    async with serving(limit=100) as endpoint:
        assert status(await talk(endpoint, chunked(endpoint, "POST", body))) == wanted


async def test_a_state_over_the_limit_is_refused_before_it_is_read_and_one_at_the_limit_is_kept() -> None:
    kept = MemoryKept()
    at_the_limit = state(1).ljust(1000)
    async with serving(limit=1000) as endpoint:
        endpoint.open_for_writing(None, 1, Vault(kept, FakeClock(), HOLDER, 1).perform)
        assert status(await talk(endpoint, request(endpoint, "LOCK", LOCK))) == 200
        over = request(endpoint, "POST", at_the_limit + b" ", "?ID=a")
        assert status(await talk(endpoint, over[: over.index(b"\r\n\r\n") + 4])) == 413, "nobody waited for the body"
        assert "state" not in kept.data
        assert status(await talk(endpoint, request(endpoint, "POST", at_the_limit, "?ID=a"))) == 200
        assert kept.data["state"] == at_the_limit


async def test_another_attempts_credentials_neither_read_nor_lock_nor_write_nor_unlock() -> None:
    kept = MemoryKept()
    async with serving() as endpoint, serving() as other:
        endpoint.open_for_writing(state(1), 1, Vault(kept, FakeClock(), HOLDER, 1).perform)
        other.open_for_writing(state(1), 1, Vault(MemoryKept(), FakeClock(), HOLDER, 1).perform)
        assert status(await talk(endpoint, request(endpoint, "LOCK", LOCK))) == 200
        before = dict(kept.data)
        for method, body, query in (
            ("GET", b"", ""),
            ("LOCK", LOCK, ""),
            ("POST", state(2), "?ID=a"),
            ("UNLOCK", LOCK, ""),
        ):
            assert status(await talk(endpoint, request(other, method, body, query))) == 401
        assert kept.data == before
        assert endpoint.ledger.lock is not None


async def test_it_listens_on_loopback_alone() -> None:
    async with serving() as endpoint:
        port = int(str(endpoint.environment(locking=True)["TF_HTTP_ADDRESS"]).split(":")[2].split("/")[0])
        listening = {
            line.split()[1].split(":")[0]
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
            if line.split()[3] == "0A" and int(line.split()[1].split(":")[1], 16) == port
        }
        assert listening == {"0100007F"}, "127.0.0.1 and no other address"


async def test_who_meets_a_lock_is_told_whose_it_is_and_each_refusal_is_told_once() -> None:
    told: list[str] = []
    async with serving() as endpoint:
        perform = Vault(MemoryKept(), FakeClock(), HOLDER, 1).perform
        endpoint.open_for_writing(None, 1, perform, who="attempt 2 of run r1", tell=lambda each: told.append(str(each)))
        await talk(endpoint, request(endpoint, "LOCK", LOCK))
        assert (endpoint.obstacle, told) == (None, [])
        answers = [await talk(endpoint, request(endpoint, "LOCK", b'{"ID": "b"}')) for _ in range(3)]
        refused = answers[-1]
        assert status(refused) == 423
        assert json.loads(refused.split(b"\r\n\r\n")[1]) == {"ID": "a", "Info": "attempt 2 of run r1"}
        assert endpoint.obstacle is not None
        assert endpoint.obstacle.id == "a"
        assert status(await talk(endpoint, request(endpoint, "POST", state(1), "?ID=b"))) == 423
        assert status(await talk(endpoint, request(endpoint, "POST", state(1)))) == 423
    assert told == [
        "refused a lock: lock a is held",
        "refused a state that was pushed: it came with the lock b, while a is held",
        "refused a state that was pushed: it came with no lock, while a is held",
    ]


@pytest.mark.parametrize(("error", "wanted"), [(FencedError("taken over"), 409), (StoreUnavailableError("full"), 503)])
async def test_what_cannot_be_made_durable_is_refused_and_raised_later(error: Exception, wanted: int) -> None:
    async def perform(deed: Deed) -> None:
        raise error

    async with serving() as endpoint:
        endpoint.open_for_writing(None, 1, perform)
        assert status(await talk(endpoint, request(endpoint, "LOCK", LOCK))) == wanted
        assert endpoint.ledger.lock is None
        with pytest.raises(type(error)):
            endpoint.raise_failure()
        endpoint.raise_failure()


async def test_the_state_before_each_command_is_kept_up_to_a_number() -> None:
    kept, clock = MemoryKept(), FakeClock()
    for turn in range(VERSIONS + 3):
        async with serving() as endpoint:
            endpoint.open_for_writing(kept.data.get("state"), 1, Vault(kept, clock, HOLDER, 1).perform)
            writes = [request(endpoint, "POST", state(10 * turn + step), "?ID=a") for step in (1, 2)]
            raw = request(endpoint, "LOCK", LOCK) + b"".join(writes) + request(endpoint, "UNLOCK", LOCK)
            assert (await talk(endpoint, raw)).count(b"200 OK") == 4
    serials = [entry["serial"] for entry in await read_index(kept)]
    assert serials == [10 * turn + 2 for turn in range(2, VERSIONS + 2)]
    assert {name for name in kept.data if name.startswith("state-") and name != "state-index"} == {
        f"state-{serial}" for serial in serials
    }


async def test_breaking_a_lock_is_noted_for_good() -> None:
    kept, clock = MemoryKept(), FakeClock()
    async with serving() as endpoint:
        endpoint.open_for_writing(None, 1, Vault(kept, clock, HOLDER, 1).perform)
        await talk(endpoint, request(endpoint, "LOCK", LOCK))
    held = await read_lock(kept)
    assert held is not None
    assert (held.lock.id, held.lock.epoch, held.holder) == ("a", 1, HOLDER)
    await Vault(kept, clock, HOLDER, 2).break_lock(held, "it died")
    assert await read_lock(kept) is None
    (entry,) = await read_index(kept)
    assert (entry["event"], entry["lock"], entry["epoch"], entry["by_epoch"]) == ("lock broken", "a", 1, 2)
