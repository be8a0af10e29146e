"""The stand-in world: builds it, follows the cloud, makes faults, runs commands on the machines, takes it all down.

It has to run inside namespaces of its own (`isolation`): it mounts, and it owns /run.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from skyspan.contracts.transport import Command, Completed, Process, Spawner, StopLadder, Transport
from skyspan.model.error import ToolFailedError
from skyspan.rehearsal import cloud, faults, material, recorder, topology
from skyspan.rehearsal.awsserver import AwsServer
from skyspan.rehearsal.machine import BOOT_S, Machine, boot, furnish, quoted
from skyspan.rehearsal.spec import GivenSecret, Rehearsal
from skyspan.rehearsal.topology import CONTROL, ROUTER

HOST_KEY = "host-"
"""Names of the stand-ins' host keys start with this, so that no secret has the same."""

FOLLOW_S = 30.0
"""How long the namespaces may take to follow the cloud, in seconds."""


class World:
    """A world that runs from `__aenter__` to `__aexit__`.

    `transport` and `spawner` run commands in the process's own namespaces; `outer` is the environment of whoever asked
    for it; `say` gets a line for whatever the world does by itself.
    """

    def __init__(
        self,
        rehearsal: Rehearsal,
        transport: Transport,
        spawner: Spawner,
        outer: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self.rehearsal = rehearsal
        self.places = material.Places()
        self.topology = topology.lay_out(rehearsal)
        self.machines: dict[str, Machine] = {}
        self.environment: dict[str, str] = {}
        self.aws: AwsServer | None = None
        self._transport = transport
        self._spawner = spawner
        self._outer = outer
        self._say = say
        self._public: dict[str, str] = {}
        self._settings: frozenset[cloud.Setting] = frozenset()
        self._state = cloud.CloudState()
        self._faults = faults.Faults()
        self._services: list[Process] = []
        self._following = asyncio.Lock()

    async def __aenter__(self) -> World:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    @property
    def state(self) -> cloud.CloudState:
        """What the cloud held when the namespaces last followed it."""
        return self._state

    def addresses(self) -> Mapping[str, tuple[str, ...]]:
        """The present addresses of every machine, the one to reach it by first."""
        found: dict[str, list[str]] = {}
        instances = cloud.standing_in(self._state, self.rehearsal)
        for name, host in self.rehearsal.hosts.items():
            instance = instances.get(name)
            candidates = [
                host.address,
                instance.elastic if instance and host.site else None,
                *(interface.ip for interface in host.lans.values()),
                instance.private if instance else None,
            ]
            found[name] = [str(address) for address in candidates if address is not None]
        return {name: tuple(addresses) for name, addresses in found.items()}

    def host_key(self, machine: str) -> str:
        """The machine's public host key (`ssh-ed25519 AAAA…`)."""
        return self._public[HOST_KEY + machine]

    def key_file(self, secret: str) -> Path:
        """The private key file of a generated secret."""
        return self.places.key(secret)

    async def on(self, machine: str, *argv: str, stdin: bytes | None = None) -> Completed:
        """Run a command on a machine (or in a helper's namespace, with this machine's files)."""
        if machine in self.machines:
            command = self.machines[machine].command(*argv)
        elif machine == CONTROL:
            command = argv
        else:
            command = ("ip", "netns", "exec", machine, *argv)
        return await self._transport.run(Command(command, stdin=stdin, env=self.environment))

    async def fault(self, words: Sequence[str]) -> None:
        """Make or mend a fault (see `faults.USAGE`); raises UsageError."""
        self._faults = faults.changed(self._faults, list(words), self.rehearsal.sites)
        await self._script("fault", _fed(ROUTER, faults.rules(self._faults)))
        self._say(f"world: {' '.join(words)}")

    async def follow_cloud(self) -> None:
        """Give every namespace the addresses and routes that the cloud's present state asks for."""
        if self.aws is None:
            return
        async with self._following:
            before, state = self._state, await asyncio.to_thread(self.aws.state)
            wanted = cloud.settings(state, self.rehearsal, self.topology)
            edge = cloud.edge_filter(state)
            if wanted == self._settings and edge == cloud.edge_filter(before):
                return
            gone, new = sorted(self._settings - wanted, reverse=True), sorted(wanted - self._settings)
            lines = [f"ip -n {one.namespace} {one.undo} 2>/dev/null || true" for one in gone]
            lines += [f"ip -n {one.namespace} {one.make}" for one in new]
            self._state, self._settings = state, wanted
            await self._script("follow the cloud", "\n".join([*lines, _fed(ROUTER, edge)]))
            self._trust()
            self._tell(before, state)

    def _tell(self, before: cloud.CloudState, after: cloud.CloudState) -> None:
        """Say who stands for what now."""
        old, new = (cloud.standing_in(state, self.rehearsal) for state in (before, after))
        for name in self.rehearsal.hosts:
            was, now = old.get(name), new.get(name)
            if now is None and was is not None:
                self._say(f"world: {name} no longer stands for {was.id}")
            elif now is not None and (was is None or (was.id, was.elastic) != (now.id, now.elastic)):
                known = ", ".join(str(address) for address in (now.elastic, now.private) if address)
                self._say(f"world: {name} stands for {now.id} with {known}")

    async def _start(self) -> None:
        for folder in ("user", "tmp", "home", "keys", "machines"):
            (self.places.root / folder).mkdir(parents=True, mode=0o700)
        Path("/run/netns").mkdir(exist_ok=True)
        # Importing the stand-in cloud takes longest, and nothing talks to it before the rest is there.
        await asyncio.gather(self._start_aws(), self._build())
        self._provide()

    async def _build(self) -> None:
        await self._make_keys()
        await self._boot_machines()
        await self._wire()
        await self._start_services()

    async def _make_keys(self) -> None:
        generated = [name for name, value in self.rehearsal.secrets.items() if not isinstance(value, GivenSecret)]
        names = [*generated, *(HOST_KEY + name for name in self.rehearsal.hosts)]
        lines = [
            quoted(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.places.key(name))))
            for name in names
        ]
        await self._script("make keys", "\n".join(lines))
        for name in names:
            kind, key = self.places.key(name).with_suffix(".pub").read_text().split()[:2]
            self._public[name] = f"{kind} {key}"

    async def _boot_machines(self) -> None:
        sshd = await self._transport.run(Command(("sh", "-c", "command -v sshd || ls /usr/sbin/sshd")))
        authorized = "".join(f"{key}\n" for name, key in self._public.items() if not name.startswith(HOST_KEY))
        names = self._names()
        for name in self.topology.machines:
            host_key = self.places.key(HOST_KEY + name).read_text()
            furnish(name, self.places.machine(name), authorized, host_key, names)
        booted = await asyncio.gather(
            *(
                boot(name, self.places.machine(name), sshd.text().strip(), self._spawner)
                for name in self.topology.machines
            )
        )
        self.machines = {machine.name: machine for machine in booted}

    async def _wire(self) -> None:
        """Name the namespaces, lay the cables, set addresses and routes, and start to forward."""
        attach = [f"ip netns attach {CONTROL} {os.getpid()}"]
        attach += [f"ip netns attach {machine.name} {machine.pid}" for machine in self.machines.values()]
        add = [f"ip netns add {name}" for name in self.topology.helpers]
        batches = [_batch(name, lines) for name, lines in topology.batch(self.topology).items()]
        router = topology.router_control_address(self.rehearsal)
        settled = [_batch(name, lines) for name, lines in topology.settle(self.topology, router).items()]
        forward = [
            f"ip netns exec {name} sh -c 'cd /proc/sys/net/ipv4; echo 1 >ip_forward; "
            "for c in conf/*; do echo 0 >$c/send_redirects; echo 0 >$c/rp_filter; done'"
            for name in self.topology.forwarding
        ]
        await self._script("wire the world", "\n".join([*attach, *add, *batches, *forward, *settled]))
        own = {"hosts": self._names(), "resolv.conf": material.resolver_settings()}
        for name, text in own.items():
            (self.places.root / name).write_text(text)
            # A link leads into /run, which is empty here: then there are no name servers either.
            if (Path("/etc") / name).is_file():
                await self._script(f"replace {name}", f"mount --bind {self.places.root / name} /etc/{name}")
        if self.rehearsal.aws:
            await self._script("guard the edge", _fed(ROUTER, cloud.edge_filter(self._state)))

    async def _start_services(self) -> None:
        for name, host in self.rehearsal.hosts.items():
            for service in host.services.values():
                argv = ("ip", "netns", "exec", name, sys.executable, "-I", "-S", recorder.__file__, str(service.port))
                self._services.append(await self._listening(name, Command(argv, ladder=StopLadder(0.5, 0.5))))

    async def _listening(self, name: str, command: Command) -> Process:
        """Start a service and wait for its first word, which it says once it listens."""
        said = asyncio.Event()
        process = await self._spawner.start(command, lambda *_: said.set())
        ended = asyncio.ensure_future(process.wait())
        spoke = asyncio.ensure_future(said.wait())
        done, _ = await asyncio.wait({ended, spoke}, timeout=BOOT_S, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        spoke.cancel()
        if spoke not in done:
            words = (await process.stop()).last_words()
            raise ToolFailedError(f"a service of the stand-in {name} did not start", detail=words)
        return process

    async def _start_aws(self) -> None:
        pool = self.rehearsal.elastic_ips
        if pool is None:
            return
        loop = asyncio.get_running_loop()

        def moved() -> None:
            """In a server thread: an answer that promises an address waits until the address is there."""
            following = asyncio.run_coroutine_threadsafe(self.follow_cloud(), loop)
            try:
                following.result(FOLLOW_S)
            except Exception as error:  # the caller is Terraform, which would retry for minutes
                self._say(f"world: could not follow the cloud: {error}")

        self.aws = AwsServer(pool, moved, material.images(self.rehearsal))
        await asyncio.to_thread(self.aws.start)

    def _provide(self) -> None:
        """Write what the inner Skyspan reads, and settle its environment."""
        generated = [name for name, value in self.rehearsal.secrets.items() if not isinstance(value, GivenSecret)]
        private = {name: self.places.key(name).read_text() for name in generated}
        self.places.secrets.touch(mode=0o600)
        self.places.secrets.write_text(material.secrets_document(self.rehearsal, private))
        url = self.aws.url if self.aws else ""
        if url:
            self.places.override.write_text(material.override(url))
        self._trust()
        self.environment = material.environment(self._outer, self.rehearsal, self.places, url, self._public)

    def _trust(self) -> None:
        """Write the known hosts: each machine's key for the addresses that are its own at this moment, no others."""
        lines = [f"{','.join(known)} {self.host_key(name)}" for name, known in self.addresses().items() if known]
        fresh = self.places.known_hosts.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in lines))
        fresh.replace(self.places.known_hosts)

    def _names(self) -> str:
        """The text of /etc/hosts: machines whose address is known from the start."""
        known = {name: topology.address_of(self.rehearsal, name) for name in self.rehearsal.hosts}
        lines = [f"{address} {name}\n" for name, address in known.items() if address is not None]
        return "".join(["127.0.0.1 localhost\n", *lines])

    async def _script(self, what: str, lines: str) -> None:
        """Run shell lines, stopping at the first that fails; raises ToolFailedError with its words."""
        completed = await self._transport.run(Command(("sh", "-eu"), stdin=lines.encode(), timeout_s=60.0))
        if not completed.ok:
            raise ToolFailedError(f"the stand-in world failed: {what}", detail=completed.last_words())

    async def _stop(self) -> None:
        if self.aws is not None:
            await asyncio.to_thread(self.aws.stop)
        await asyncio.gather(*(process.stop() for process in self._services))
        await asyncio.gather(*(machine.process.stop() for machine in self.machines.values()))
        names = (*self.topology.machines, *self.topology.helpers, CONTROL)
        lines = [*(f"ip netns del {name}" for name in names), "ip link del world"]
        lines += [f"umount /etc/{name}" for name in ("hosts", "resolv.conf")]
        with suppress(ToolFailedError):
            await self._script("take down", "\n".join(f"{line} 2>/dev/null || true" for line in lines))


def _batch(namespace: str, lines: str) -> str:
    return f"ip -n {namespace} -batch - <<'END'\n{lines}END"


def _fed(namespace: str, ruleset: str) -> str:
    """A line that loads an nftables ruleset in one transaction."""
    return f"ip netns exec {namespace} nft -f - <<'END'\n{ruleset}END"
