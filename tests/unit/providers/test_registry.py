"""Which providers exist, and what is said when one cannot be had."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from skyspan.contracts.provider import Spec
from skyspan.model.error import SpecError, ToolMissingError
from skyspan.providers.command.spec import CommandSpec
from skyspan.providers.registry import BUILT_IN, GROUP, BuiltIn, Registry


class Offered:
    """A provider of another distribution.

    The rest of its text is not the summary.
    """

    kind = "offered"
    spec = Spec

    async def observe(self) -> None: ...
    async def plan(self) -> None: ...
    async def apply(self) -> None: ...
    async def destroy(self) -> None: ...
    async def stop(self, spec: Any, ctx: Any) -> None: ...


class WithoutDestroy:
    kind = "offered"
    spec = Spec

    async def observe(self) -> None: ...
    async def plan(self) -> None: ...
    async def apply(self) -> None: ...


class WithoutSpec(Offered):
    spec = dict  # type: ignore[assignment]


class Breaks(Offered):
    def __init__(self) -> None:
        msg = "no module named boto9"
        raise ImportError(msg)


class Distribution:
    name = "lab-tools"
    version = "1.2"


def entry(name: str, target: str) -> EntryPoint:
    point = EntryPoint(name, target, GROUP)
    vars(point).update(dist=Distribution())
    return point


def registry(*offers: tuple[str, Any]) -> Registry:
    """A registry beside whose own providers others offer theirs."""
    module = sys.modules[__name__]
    points: list[EntryPoint] = []
    for name, kind in offers:
        setattr(module, kind.__name__, kind)
        points.append(entry(name, f"{__name__}:{kind.__name__}"))
    sys.modules.setdefault(__name__, module)
    return Registry(entry_points=lambda: points)


def test_the_table_names_every_provider_of_this_distribution() -> None:
    assert set(BUILT_IN) == {
        "ansible",
        "aws-vpn",
        "bgp",
        "check",
        "command",
        "compose",
        "containerlab",
        "docker",
        "http",
        "ipsec",
        "netlab",
        "routes",
        "ssh-tunnel",
        "tailscale",
        "terraform",
        "traffic",
        "wireguard",
    }


@pytest.mark.parametrize("kind", ["check", "command", "http"])
def test_a_provider_is_made_once_and_calls_itself_by_its_name(kind: str) -> None:
    known = registry()
    assert known.get(kind) is known.get(kind)
    assert known.get(kind).kind == kind


@pytest.mark.parametrize("kind", BUILT_IN)
def test_the_settings_are_the_same_whether_or_not_the_provider_was_imported(kind: str) -> None:
    assert registry().spec_of(kind) is registry().get(kind).spec


def test_a_known_provider_is_found_without_reading_the_metadata_of_every_distribution() -> None:
    def read() -> Iterable[EntryPoint]:
        raise AssertionError("entry points were read")

    assert Registry(entry_points=read).spec_of("command") is CommandSpec


def test_an_unknown_provider_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(SpecError, match="'comand'") as caught:
        registry().get("comand")
    assert caught.value.hint == "did you mean 'command'?"
    with pytest.raises(SpecError) as caught:
        registry().get("zzz")
    assert "known providers: ansible, aws-vpn, bgp, check" in caught.value.hint


def test_another_distribution_can_offer_a_provider() -> None:
    known = registry(("offered", Offered))
    assert "offered" in known.kinds()
    assert known.kinds() == tuple(sorted(known.kinds()))
    assert isinstance(known.get("offered"), Offered)


def test_every_provider_is_described_with_its_abilities() -> None:
    table = {kind: BUILT_IN[kind] for kind in ("check", "command", "http")}
    described = {
        item.kind: item for item in Registry(table, lambda: [entry("offered", f"{__name__}:Offered")]).describe()
    }
    assert described["offered"].summary == "A provider of another distribution."
    assert described["offered"].abilities == ("stop",)
    assert described["offered"].distribution == "lab-tools 1.2"
    assert described["command"].abilities == ("preflight", "stop", "start")
    assert described["command"].module == "skyspan.providers.command.provider"
    assert described["http"].summary.startswith("Sends HTTP requests")


def test_an_offer_that_shadows_a_provider_of_ours_is_refused() -> None:
    with pytest.raises(SpecError, match=r"'command' is offered twice: by skyspan and by lab-tools 1\.2"):
        registry(("command", Offered)).kinds()


def test_two_offers_of_one_name_are_refused() -> None:
    with pytest.raises(SpecError, match="'offered' is offered twice"):
        registry(("offered", Offered), ("offered", WithoutDestroy)).get("offered")


def test_the_same_offer_listed_twice_is_one() -> None:
    assert registry(("offered", Offered), ("offered", Offered)).get("offered").kind == "offered"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (WithoutDestroy, "is no provider: it has no destroy"),
        (WithoutSpec, "its spec is not a model"),
        (Breaks, "cannot be loaded"),
    ],
)
def test_a_broken_offer_is_told_with_its_distribution(kind: Any, words: str) -> None:
    with pytest.raises(ToolMissingError, match=words) as caught:
        registry(("offered", kind)).get("offered")
    assert "lab-tools 1.2" in caught.value.summary
    with pytest.raises(ToolMissingError):
        registry(("offered", kind)).describe()


def test_a_broken_import_is_told_with_what_failed() -> None:
    with pytest.raises(ToolMissingError) as caught:
        Registry({"mine": BuiltIn("skyspan.no_such_module:Mine", "skyspan.no_such_module:Spec")}, list).get("mine")
    assert caught.value.detail == "ModuleNotFoundError: No module named 'skyspan.no_such_module'"


def test_a_provider_that_calls_itself_otherwise_is_refused() -> None:
    with pytest.raises(ToolMissingError, match="it calls itself 'offered'"):
        registry(("other", Offered)).get("other")


def test_the_settings_of_a_provider_are_had_without_heavy_libraries() -> None:
    script = (
        "import sys; from skyspan.providers.registry import Registry; known = Registry()\n"
        "for kind in ('check', 'command', 'http'): known.spec_of(kind)\n"
        "heavy = {'aiohttp', 'asyncssh', 'sqlalchemy', 'rich', 'nacl', 'yaml', 'asyncio', 'ssl'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.strip() == "[]"
