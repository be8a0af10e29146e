"""The http provider under the provider suite, and against a real server on loopback that misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from skyspan.model.change import Action
from skyspan.model.error import (
    CredentialsError,
    OutputError,
    Retry,
    SpecError,
    StageError,
    ToolFailedError,
    UnreachableError,
)
from skyspan.model.secret import Secret
from skyspan.providers.http.provider import HttpProvider
from skyspan.providers.http.spec import HttpSpec
from skyspan.providers.remembered import Remembered, remember
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.provider_world import ProviderWorld, SteppingClock

TOKEN = Secret("tok3n/+=secret")


@dataclass
class Registry:
    """A device registry: PUT /devices/NAME, GET it, DELETE it; and answers from `script` at /script."""

    url: str = ""
    devices: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)
    numbers: int = 0
    script: list[web.Response] = field(default_factory=list)
    requests: list[web.Request] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_put("/devices/{name}", self.put)
        app.router.add_get("/devices/{name}", self.get)
        app.router.add_delete("/devices/{name}", self.delete)
        app.router.add_post("/rows", self.post_row)
        app.router.add_get("/rows", self.find_rows)
        app.router.add_route("*", "/rows/{id}", self.row)
        app.router.add_route("*", "/script", self.scripted)
        app.router.add_route("*", "/slow", self.slow)
        return app

    async def put(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.devices[name] = await request.json()
        return web.json_response({"data": [{"id": name, "size": len(self.devices[name])}]}, status=201)

    async def get(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return web.json_response(self.devices[name]) if name in self.devices else web.Response(status=404)

    async def delete(self, request: web.Request) -> web.Response:
        return web.Response(status=204 if self.devices.pop(request.match_info["name"], None) is not None else 404)

    async def post_row(self, request: web.Request) -> web.Response:
        self.numbers += 1
        self.rows[str(self.numbers)] = await request.json()
        return web.json_response({"id": self.numbers}, status=201)

    async def find_rows(self, request: web.Request) -> web.Response:
        found = [{"id": int(key)} for key, row in self.rows.items() if row["name"] == request.query["name"]]
        return web.json_response({"count": len(found), "results": found})

    async def row(self, request: web.Request) -> web.Response:
        key = request.match_info["id"]
        if key not in self.rows:
            return web.Response(status=404)
        if request.method == "DELETE":
            del self.rows[key]
            return web.Response(status=204)
        if request.method == "PATCH":
            self.rows[key] |= await request.json()
        return web.json_response({"changed": True})

    async def scripted(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        self.bodies.append(await request.text())
        return self.script.pop(0)

    async def slow(self, request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    served = Registry()
    runner = web.AppRunner(served.application(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    served.url = f"http://{host}:{port}"
    yield served
    await runner.cleanup()


@pytest.fixture
def world(tmp_path: Path) -> ProviderWorld:
    return ProviderWorld(tmp_path, {}, clock=SteppingClock())


def spec(**settings: Any) -> HttpSpec:
    return HttpSpec.model_validate(settings)


class TestWithACheck(ProviderConformance):
    @pytest.fixture
    def case(self, world: ProviderWorld, registry: Registry) -> ProviderCase:
        common: dict[str, Any] = {
            "url": f"{registry.url}/devices/gw1",
            "method": "put",
            "expect": {"status": [201], "json": {"/data/0/id": "gw1"}},
            "outputs": {"id": "data.0.id", "size": "/data/0/size"},
            "destroy": {"url": registry.url + "/devices/gw1"},
        }

        def device(cidr: Any, **more: Any) -> HttpSpec:
            check = {"url": f"{registry.url}/devices/gw1", "expect": {"json": {"cidr": cidr}}}
            return spec(body={"cidr": cidr}, check=check, **(common | more))

        return ProviderCase(
            provider=HttpProvider(),
            spec=device("10.0.0.0/16"),
            changed=device("10.1.0.0/16"),
            secret_spec=device(Secret("10.2.0.0/16-hidden"), auth={"bearer": TOKEN}),
            failing_spec=spec(url=f"{registry.url}/devices/gw1", method="PUT", body=TOKEN, retries={"attempts": 1}),
            slow_spec=spec(url=f"{registry.url}/slow"),
            world=world,
            snapshot=lambda: dict(registry.devices),
        )


class TestWithNothingButMemory(ProviderConformance):
    @pytest.fixture
    def case(self, world: ProviderWorld, registry: Registry) -> ProviderCase:
        common: dict[str, Any] = {
            "url": f"{registry.url}/devices/gw2",
            "method": "PUT",
            "outputs": {"id": "/data/0/id"},
            "destroy": {"url": registry.url + "/devices/gw2"},
        }
        return ProviderCase(
            provider=HttpProvider(),
            spec=spec(body={"cidr": 1}, **common),
            changed=spec(body={"cidr": 2}, **common),
            secret_spec=spec(body={"cidr": 1}, headers={"X-Token": TOKEN}, **common),
            world=world,
            snapshot=lambda: dict(registry.devices),
        )


class TestForEachItem(ProviderConformance):
    @pytest.fixture
    def case(self, world: ProviderWorld, registry: Registry) -> ProviderCase:
        return ProviderCase(
            provider=HttpProvider(),
            spec=devices(registry, r1="10.0.0.0/16", r2="10.1.0.0/16"),
            changed=devices(registry, r2="10.2.0.0/16", r3="10.3.0.0/16"),
            secret_spec=devices(registry, r1=Secret("10.4.0.0/16-hidden")),
            failing_spec=spec(each=["r1"], url=f"{registry.url}/absent", body=TOKEN, retries={"attempts": 1}),
            slow_spec=spec(each=["r1", "r2"], url=f"{registry.url}/slow"),
            world=world,
            snapshot=lambda: dict(registry.devices),
        )


def devices(registry: Registry, **cidrs: Any) -> HttpSpec:
    """Settings that register each device with its address."""
    address = registry.url + "/devices/{key}"
    return spec(
        each={name: {"cidr": cidr} for name, cidr in cidrs.items()},
        url=address,
        method="PUT",
        body={"name": "{key}", "cidr": "{each.cidr}"},
        outputs={"id": "data.0.id"},
        check={"url": address, "expect": {"json": {"cidr": "{each.cidr}"}}},
        destroy={"url": address},
    )


async def test_items_are_sent_changed_and_undone_one_by_one(world: ProviderWorld, registry: Registry) -> None:
    provider = HttpProvider()

    async def converge(wanted: HttpSpec) -> list[tuple[str, str]]:
        seen = await provider.observe(wanted, world.reading())
        change = await provider.plan(wanted, seen, world.reading())
        after = await provider.apply(wanted, change, world.writing())
        settled = await provider.plan(wanted, await provider.observe(wanted, world.reading()), world.reading())
        assert settled.action is Action.NONE
        assert after.outputs["id"].value == {key: key for key in wanted.singles}
        return [(resource.address.split(":")[0], resource.action.value) for resource in change.resources]

    first = await converge(devices(registry, r1="10.1.0.0/16", r2="10.2.0.0/16", r3="10.3.0.0/16"))
    assert first == [("r1", "create"), ("r2", "create"), ("r3", "create")]
    registry.devices["by hand"] = 7
    second = await converge(devices(registry, r1="10.1.0.0/16", r2="10.9.0.0/16", r4="10.4.0.0/16"))
    assert second == [("r2", "update"), ("r4", "create"), ("r3", "destroy")]
    assert set(registry.devices) == {"r1", "r2", "r4", "by hand"}
    del registry.devices["r1"]
    registry.devices["r4"] = {"cidr": "somebody's"}
    wanted = devices(registry, r1="10.1.0.0/16", r2="10.9.0.0/16", r4="10.4.0.0/16")
    seen = await provider.observe(wanted, world.reading())
    assert (seen.drifted, seen.reason) == (True, "1 of 3 is missing: r1")
    assert await converge(wanted) == [("r1", "create"), ("r4", "update")]
    await provider.destroy(wanted, world.writing())
    assert set(registry.devices) == {"by hand"}
    assert not world.kept.data


async def test_what_fails_names_its_item_and_the_others_are_done(world: ProviderWorld, registry: Registry) -> None:
    registry.script = [web.Response(status=400, text="no such site")]
    rows = {name: f"{registry.url}/{place}" for name, place in {"r1": "script", "r2": "devices/r2"}.items()}
    with pytest.raises(ToolFailedError, match=r"^r1: PUT .*/script: status 400") as caught:
        await send(world, each=rows, url="{each}", method="PUT", body={"name": "{key}"})
    assert caught.value.detail == "no such site"
    assert registry.devices == {"r2": {"name": "r2"}}
    registry.devices["r2"] = "since changed by hand"
    registry.script = [web.json_response({})]
    await send(world, each=rows, url="{each}", method="PUT", body={"name": "{key}"})
    assert registry.devices == {"r2": "since changed by hand"}, "what was sent is not sent again"


async def test_what_is_made_by_one_request_and_changed_by_another_is_never_made_twice(
    world: ProviderWorld, registry: Registry
) -> None:
    """As with NetBox: POST gives an id, PATCH goes to it; and a create that was cut off is found by its name."""
    common: dict[str, Any] = {
        "url": f"{registry.url}/rows",
        "outputs": {"id": "id"},
        "find": {"url": f"{registry.url}/rows?name=r1", "outputs": {"id": "results.0.id"}},
        "update": {"url": registry.url + "/rows/{id}"},
        "check": {"url": registry.url + "/rows/{id}"},
        "destroy": {"url": registry.url + "/rows/{id}"},
    }
    first = await send(world, body={"name": "r1", "role": "edge"}, **common)
    assert (first.outputs["id"].value, registry.rows) == (1, {"1": {"name": "r1", "role": "edge"}})
    await send(world, body={"name": "r1", "role": "core"}, **common)
    assert registry.rows == {"1": {"name": "r1", "role": "core"}}
    world.kept.data.clear()
    again = await send(world, body={"name": "r1", "role": "spine"}, **common)
    assert (again.outputs["id"].value, registry.rows) == (1, {"1": {"name": "r1", "role": "spine"}})
    registry.rows.clear()
    anew = await send(world, body={"name": "r1", "role": "spine"}, **common)
    assert (anew.outputs["id"].value, registry.rows) == (2, {"2": {"name": "r1", "role": "spine"}})
    await remember(world.writing().kept, Remembered(finished=False))
    await HttpProvider().destroy(spec(body={}, **common), world.writing())
    assert registry.rows == {}, "what was made just before the attempt was cut off is found, too"


def test_what_is_found_has_to_be_updated_somehow() -> None:
    with pytest.raises(ValidationError, match="`find` needs `update`"):
        spec(url="http://a.test/", find={"url": "http://a.test/", "outputs": {"id": "id"}})


async def test_a_stage_that_becomes_many_is_refused_as_the_one_could_not_be_undone(
    world: ProviderWorld, registry: Registry
) -> None:
    one = {"url": f"{registry.url}/devices/gw", "method": "PUT", "body": {}, "destroy": {"url": registry.url}}
    await send(world, **one)
    with pytest.raises(SpecError, match="`each` was added") as caught:
        await send(world, each=["a"], **one)
    assert "another name" in caught.value.hint


async def send(world: ProviderWorld, **settings: Any) -> Any:
    provider = HttpProvider()
    wanted = spec(**settings)
    change = await provider.plan(wanted, await provider.observe(wanted, world.reading()), world.reading())
    return await provider.apply(wanted, change, world.writing())


async def test_a_request_carries_method_headers_query_body_and_credentials(
    world: ProviderWorld, registry: Registry
) -> None:
    registry.script = [web.json_response({})]
    await send(
        world,
        url=f"{registry.url}/script?kept=1",
        headers={"X-Site": "lab", "X-Number": 3},
        query={"dry": True, "token": TOKEN},
        body={"cidr": "10.0.0.0/16", "key": Secret("k")},
        auth={"basic": {"user": "me", "password": TOKEN}},
    )
    request = registry.requests[0]
    assert request.method == "POST"
    assert request.headers["X-Site"] == "lab"
    assert request.headers["X-Number"] == "3"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Authorization"].startswith("Basic ")
    assert dict(request.query) == {"kept": "1", "dry": "true", "token": TOKEN.reveal()}
    assert json.loads(registry.bodies[0]) == {"cidr": "10.0.0.0/16", "key": "k"}


async def test_a_server_error_is_told_with_its_status_and_first_words_and_may_be_retried_later(
    world: ProviderWorld, registry: Registry
) -> None:
    said = f"database down, your token was {TOKEN.reveal()}"
    registry.script = [web.Response(status=500, text=said) for _ in range(3)]
    with pytest.raises(ToolFailedError, match="status 500 Internal Server Error") as caught:
        await send(world, url=f"{registry.url}/script", body="x", auth={"bearer": TOKEN})
    assert caught.value.retry is Retry.LATER
    assert caught.value.detail == "database down, your token was ***"
    assert len(registry.requests) == 3


async def test_a_busy_server_is_asked_again_after_the_time_it_names(world: ProviderWorld, registry: Registry) -> None:
    registry.script = [
        web.Response(status=503, headers={"Retry-After": "7"}),
        web.Response(status=429, headers={"Retry-After": "Tue, 14 Nov 2023 22:13:37 GMT"}),
        web.json_response({"id": 4}),
    ]
    seen = await send(world, url=f"{registry.url}/script", outputs={"id": "id"})
    assert seen.outputs["id"].value == 4
    clock = world.clock
    assert isinstance(clock, SteppingClock)
    assert clock.slept == [7.0, 10.0]


async def test_a_server_that_wants_to_be_left_alone_for_long_is(world: ProviderWorld, registry: Registry) -> None:
    registry.script = [web.Response(status=503, headers={"Retry-After": "86400"})]
    with pytest.raises(ToolFailedError, match="503"):
        await send(world, url=f"{registry.url}/script")


async def test_retries_end_before_the_deadline(world: ProviderWorld, registry: Registry) -> None:
    registry.script = [web.Response(status=503)]
    provider, wanted = HttpProvider(), spec(url=f"{registry.url}/script", retries={"attempts": 9, "backoff": 10})
    change = await provider.plan(wanted, await provider.observe(wanted, world.reading()), world.reading())
    with pytest.raises(ToolFailedError, match="503"):
        await provider.apply(wanted, change, world.writing(deadline=world.clock.monotonic() + 5))


async def test_a_refused_connection_is_unreachable(world: ProviderWorld) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(UnreachableError, match="refused") as caught:
            await send(world, url=f"http://127.0.0.1:{port}/x?token=abc", retries={"attempts": 2})
    assert caught.value.retry is Retry.LATER
    assert "abc" not in str(caught.value)


async def test_a_server_that_does_not_answer_is_unreachable(world: ProviderWorld, registry: Registry) -> None:
    with pytest.raises(UnreachableError, match=r"no answer in 0\.05 s"):
        await send(world, url=f"{registry.url}/slow", timeout=0.05, retries={"attempts": 1})


async def test_refused_credentials_are_told_apart(world: ProviderWorld, registry: Registry) -> None:
    registry.script = [web.Response(status=401, text="who are you")]
    with pytest.raises(CredentialsError, match="401"):
        await send(world, url=f"{registry.url}/script", auth={"bearer": TOKEN})


async def test_an_answer_that_is_not_as_expected_is_told_without_its_secrets(
    world: ProviderWorld, registry: Registry
) -> None:
    registry.script = [web.json_response({"state": "new", "n": 1})]
    expect = {"json": {"/state": "ready", "missing.path": 1, "n": TOKEN}, "contains": TOKEN}
    with pytest.raises(ToolFailedError) as caught:
        await send(world, url=f"{registry.url}/script", expect=expect)
    assert 'the body does not contain "***"' in caught.value.summary
    assert '/state is not "ready"' in caught.value.summary
    assert "the answer has no 'missing.path': at 'missing' there is an object with n, state" in caught.value.summary
    assert 'n is not "***"' in caught.value.summary
    assert caught.value.retry is Retry.NEVER


async def test_an_output_that_is_not_in_the_answer_is_an_output_error(world: ProviderWorld, registry: Registry) -> None:
    registry.script = [web.json_response([{"a": 1}]), web.Response(text="<html>")]
    with pytest.raises(OutputError, match=r"the answer has no '/4/a': at '4' there is a list of 1"):
        await send(world, url=f"{registry.url}/script", outputs={"a": "/4/a"})
    with pytest.raises(OutputError, match="not JSON"):
        await send(world, url=f"{registry.url}/script", outputs={"a": "/4/a"})


async def test_an_endless_answer_is_cut(world: ProviderWorld, registry: Registry) -> None:
    registry.script = [web.Response(body=b"[" + b"1," * (3 * 1024 * 1024) + b"1]")]
    with pytest.raises(OutputError, match="too long"):
        await send(world, url=f"{registry.url}/script", outputs={"a": "/0"})


async def test_a_redirect_to_another_origin_gets_no_credentials(world: ProviderWorld, registry: Registry) -> None:
    elsewhere = registry.url.replace("127.0.0.1", "localhost") + "/script"
    registry.script = [web.Response(status=302, headers={"Location": elsewhere}), web.json_response({})]
    await send(world, url=f"{registry.url}/script", headers={"X-Token": TOKEN}, auth={"bearer": TOKEN})
    assert registry.requests[0].headers["X-Token"] == TOKEN.reveal()
    assert not {"X-Token", "Authorization"} & set(registry.requests[1].headers)


async def test_a_redirect_of_a_change_to_another_origin_is_not_followed(
    world: ProviderWorld, registry: Registry
) -> None:
    elsewhere = registry.url.replace("127.0.0.1", "localhost") + "/script"
    registry.script = [web.Response(status=307, headers={"Location": elsewhere})]
    with pytest.raises(ToolFailedError, match="to another server"):
        await send(world, url=f"{registry.url}/script", body={"a": 1})
    assert len(registry.requests) == 1


async def test_a_redirect_within_the_origin_keeps_method_and_body(world: ProviderWorld, registry: Registry) -> None:
    registry.script = [web.Response(status=307, headers={"Location": "/script"}), web.json_response({})]
    await send(world, url=f"{registry.url}/script", body={"a": 1}, auth={"bearer": TOKEN})
    assert [request.method for request in registry.requests] == ["POST", "POST"]
    assert registry.bodies == ['{"a": 1}', '{"a": 1}']
    assert registry.requests[1].headers["Authorization"] == f"Bearer {TOKEN.reveal()}"


async def test_redirects_end(world: ProviderWorld, registry: Registry) -> None:
    registry.script = [web.Response(status=302, headers={"Location": "/script"}) for _ in range(9)]
    with pytest.raises(ToolFailedError, match="more than 5 redirects"):
        await send(world, url=f"{registry.url}/script")


async def test_destroy_goes_to_the_address_that_the_answer_gave(world: ProviderWorld, registry: Registry) -> None:
    registry.devices["a b/c"] = {}
    registry.script = [web.json_response({"id": "a b/c"})]
    settings: dict[str, Any] = {
        "url": f"{registry.url}/script",
        "outputs": {"id": "id"},
        "destroy": {"url": registry.url + "/devices/{id}"},
    }
    await send(world, **settings)
    await HttpProvider().destroy(spec(**settings), world.writing())
    assert registry.devices == {}


async def test_destroying_what_is_gone_already_succeeds(world: ProviderWorld, registry: Registry) -> None:
    registry.script = [web.json_response({})]
    settings: dict[str, Any] = {"url": f"{registry.url}/script", "destroy": {"url": registry.url + "/devices/none"}}
    await send(world, **settings)
    await HttpProvider().destroy(spec(**settings), world.writing())


async def test_what_was_changed_behind_our_back_has_drifted(world: ProviderWorld, registry: Registry) -> None:
    settings: dict[str, Any] = {
        "url": f"{registry.url}/devices/gw",
        "method": "PUT",
        "body": {"cidr": 1},
        "check": {"url": f"{registry.url}/devices/gw", "expect": {"json": {"cidr": 1}}},
    }
    await send(world, **settings)
    registry.devices["gw"] = {"cidr": 2}
    provider, wanted = HttpProvider(), spec(**settings)
    seen = await provider.observe(wanted, world.reading())
    assert seen.drifted
    assert (await provider.plan(wanted, seen, world.reading())).action is Action.UPDATE
    await send(world, **settings)
    assert registry.devices["gw"] == {"cidr": 1}
    del registry.devices["gw"]
    assert not (await provider.observe(wanted, world.reading())).exists


async def test_a_ca_file_that_is_missing_is_a_mistake_in_the_settings(world: ProviderWorld) -> None:
    with pytest.raises(SpecError, match="CA file"):
        await send(world, url="https://127.0.0.1:1/", verify="missing.pem")


async def test_an_unchecked_certificate_is_warned_of(world: ProviderWorld) -> None:
    with pytest.raises(StageError):
        await send(world, url="https://127.0.0.1:1/", verify=False, retries={"attempts": 1})
    assert "not checked" in world.report.said()
