"""A stage between the gateways of a world, driven as the engine drives it; and gateways where something goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from skyspan.contracts.provider import Provider, Spec
from skyspan.contracts.transport import Command, Completed, Connection, Effect, OnOutput, Transport
from skyspan.contracts.watch import Finding, SupportsWatch
from skyspan.model.change import Change, Observation
from skyspan.model.error import StageError, UnreachableError
from skyspan.testing.gateway_world import GatewayWorld, Machine
from skyspan.testing.provider_world import ProviderWorld

S = TypeVar("S", bound=Spec)


class Driven(Generic[S]):
    """The verbs on one stage; who inherits says which provider, and in which world."""

    world: ProviderWorld

    @property
    def drives(self) -> Provider[S]:
        """The provider."""
        raise NotImplementedError

    async def look(self, settings: S) -> tuple[Observation, Change]:
        ctx = self.world.reading()
        seen = await self.drives.observe(settings, ctx)
        return seen, await self.drives.plan(settings, seen, ctx)

    async def up(self, settings: S) -> Observation:
        seen, change = await self.look(settings)
        return await self.drives.apply(settings, change, self.world.writing()) if change.action.changes else seen

    async def down(self, settings: S) -> None:
        await self.drives.destroy(settings, self.world.writing())

    @property
    def watched(self) -> SupportsWatch:
        """The provider, which can be asked what is wrong with a link."""
        assert isinstance(self.drives, SupportsWatch)
        return self.drives

    async def diagnosed(self, settings: S) -> tuple[Finding, ...]:
        return await self.watched.diagnose(settings, self.world.reading())

    async def passes(self, settings: S) -> bool:
        return all(one.passed for one in await self.watched.probe(settings, self.world.reading()))

    def written(self) -> list[Command]:
        return [command for command in self.world.commands if command.effect is Effect.WRITE]

    @contextlib.contextmanager
    def by(self, gateway: Through) -> Iterator[None]:
        """Meanwhile one of the gateways is reached in another way."""
        steady = self.world.transports
        there: dict[str | None, Transport] = {**steady, gateway.name: gateway}
        self.world.transports = there
        try:
            yield
        finally:
            self.world.transports = steady


@dataclass
class Through:
    """A gateway as it is; who inherits alters what is run there."""

    machine: Machine

    @property
    def name(self) -> str:
        return self.machine.name

    async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        return await self.machine.query(command, on_output)

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        return await self.machine.run(command, on_output)

    async def dial(self, address: str, port: int, timeout_s: float) -> Connection:
        return await self.machine.dial(address, port, timeout_s)

    async def close(self) -> None:
        """Nothing."""


@dataclass
class LastWords(Through):
    """A gateway that cannot be reached any more for the one script that ends like this."""

    unheard: str

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        script = command.argv[2]
        if isinstance(script, str) and script.endswith(self.unheard):
            raise UnreachableError(f"{self.name} does not answer")
        return await self.machine.run(command, on_output)


@dataclass
class DyingShell(Through):
    """A gateway whose shell is killed when a script reaches its n-th step."""

    at: int
    died: bool = False

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        script = command.argv[2]
        assert isinstance(script, str)
        count = f"steps=$((${{steps:-0}}+1)); if [ $steps = {self.at} ]; then kill -9 $$; fi"
        assert "step() { doing=$1; }" in script
        altered = script.replace("step() { doing=$1; }", f"step() {{ doing=$1; {count}; }}")
        done = await self.machine.run(replace(command, argv=(*command.argv[:2], altered, *command.argv[3:])), on_output)
        self.died |= done.exit_code in (-9, 137)
        return done


async def assert_cut_off_is_healed(
    driven: Driven[S], settings: S, where: tuple[GatewayWorld, str], at: int, heals: Sequence[bool] = (True, False)
) -> None:
    """Have each script on a host of the world die at its n-th step, in making and in removing, with and without another
    `up` in between: what is left is taken away by the next `down`."""
    sites, host = where
    before = await sites.state()
    shell = DyingShell(sites.machines[host], at)
    for heal in heals:
        with driven.by(shell), contextlib.suppress(StageError):
            await driven.up(settings)
        if heal:
            assert (await driven.up(settings)).healthy
        with driven.by(shell), contextlib.suppress(StageError):
            await driven.down(settings)
        await driven.down(settings)
        assert await sites.state() == before, f"after a death at step {at}"
    assert shell.died, f"no script has {at} steps"


async def until(holds: Callable[[], Awaitable[bool]], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.05)


DOCKER = """
for tool in "$@"; do
  $tool -w -N DOCKER-USER; $tool -w -A DOCKER-USER -j RETURN
  $tool -w -P FORWARD DROP; $tool -w -A FORWARD -j DOCKER-USER
done
"""
"""What Docker leaves of a host's forwarding. Arguments: its iptables and ip6tables."""


@dataclass(frozen=True)
class DockerHost:
    """A gateway on which Docker set FORWARD to DROP, by the iptables of `kind`."""

    machine: Machine
    kind: str

    @property
    def tools(self) -> tuple[str, str]:
        return f"iptables-{self.kind}", f"ip6tables-{self.kind}"

    async def begin(self) -> None:
        await self.machine.sh(DOCKER, *self.tools)

    async def rules(self) -> list[str]:
        return [await self.machine.sh('"$1" -w -S', tool) for tool in self.tools]

    async def opened(self) -> list[str]:
        """The rules of links."""
        return [line for text in await self.rules() for line in text.splitlines() if "skyspan-" in line]

    async def flush(self) -> None:
        await self.machine.sh('"$1" -w -F DOCKER-USER; "$1" -w -A DOCKER-USER -j RETURN', self.tools[0])


LOCKED_OUT = """table inet {table}
delete table inet {table}
table inet {table} {{
	chain input {{ type filter hook input priority filter; policy drop; }}
	chain output {{ type filter hook output priority filter; policy drop; }}
}}
"""
"""A ruleset by which nobody reaches the host any more."""
