"""The state endpoint over its socket: strict HTTP, credentials, answers only after what they tell is durable."""

from __future__ import annotations

import asyncio
import base64
import json

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
        chunked = request(endpoint, "POST", extra="Transfer-Encoding: chunked\r\n")
        assert status(await talk(endpoint, chunked)) == 411
        big = request(endpoint, "POST").replace(b"Content-Length: 0", b"Content-Length: 999999999999")
        assert status(await talk(endpoint, big)) == 413
        assert status(await talk(endpoint, request(endpoint, "GET").replace(b"/state", b"/else"))) == 404


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
