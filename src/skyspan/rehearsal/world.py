"""The stand-in world: builds it, follows the cloud, lets it be disturbed, runs commands on its machines, takes it down.

It has to run inside namespaces of its own (`isolation`): it mounts, and it owns /run.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType

from skyspan.contracts.transport import Command, Completed, Process, Spawner, Transport
from skyspan.model.error import ToolFailedError, UsageError
from skyspan.rehearsal import inner
from skyspan.rehearsal.cloud import networks
from skyspan.rehearsal.cloud.server import AwsServer, machine_images
from skyspan.rehearsal.cloud.state import CloudState, ends_of, moves, standing_in
from skyspan.rehearsal.cloud.vpn_ends import VpnEnds, require
from skyspan.rehearsal.faults import conntrack
from skyspan.rehearsal.faults.between_sites import Faults, rules
from skyspan.rehearsal.faults.clocks import Clocks
from skyspan.rehearsal.hosts.machine import Machine, boot, forget_running, furnish, quoted
from skyspan.rehearsal.places import Ground, Places
from skyspan.rehearsal.programs import inside, listening, standard
from skyspan.rehearsal.services.images import Sources
from skyspan.rehearsal.services.runner import Services, belongings, own_texts, private_folders
from skyspan.rehearsal.spec import GivenSecret, Headscale, Rehearsal, services_of
from skyspan.rehearsal.underlay import names, nameserver, topology
from skyspan.rehearsal.underlay.topology import CONTROL, ROUTER

HOST_KEY = "host-"
"""Names of the stand-ins' host keys start with this, so that no secret has the same."""

FOLLOW_S = 30.0
"""How long the namespaces may take to follow the cloud, in seconds."""


class World:
    """A world that runs from `__aenter__` to `__aexit__`.

    `transport` and `spawner` run commands in the process's own namespaces; `outer` is the environment of whoever asked
    for it, `ground` what else it is told; `say` gets a line for whatever the world does by itself.
    """

    def __init__(
        self,
        rehearsal: Rehearsal,
        transport: Transport,
        spawner: Spawner,
        outer: Mapping[str, str],
        say: Callable[[str], None],
        ground: Ground,
    ) -> None:
        self.rehearsal = rehearsal
        self.places = Places()
        self.topology = topology.lay_out(rehearsal)
        self.machines: dict[str, Machine] = {}
        self.environment: dict[str, str] = {}
        self.aws: AwsServer | None = None
        self.faults = Faults()
        self.clocks = Clocks(transport, spawner)
        self._transport = transport
        self._spawner = spawner
        self._outer = outer
        self._ground = ground
        self._tell_caller = say
        self._public: dict[str, str] = {}
        self._settings: frozenset[networks.Setting] = frozenset()
        self._state = CloudState()
        self._sshd = ""
        self._services = Services(transport, spawner)
        self._vpn_ends = VpnEnds(transport)
        self._name_server: Process | None = None
        self._given: Mapping[str, str] = {}
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
    def state(self) -> CloudState:
        """What the cloud held when the namespaces last followed it."""
        return self._state

    def addresses(self) -> Mapping[str, tuple[str, ...]]:
        """The present addresses of every machine, the one to reach it by first."""
        found: dict[str, list[str]] = {}
        instances = standing_in(self._state, self.rehearsal)
        ends = ends_of(self._state, self.rehearsal)
        for name, host in self.rehearsal.hosts.items():
            instance = instances.get(name)
            candidates = [
                host.address,
                instance.elastic if instance and host.site else None,
                *(interface.ip for interface in host.lans.values()),
                instance.private if instance else None,
                *(ends[name].outside if name in ends else ()),
            ]
            found[name] = [str(address) for address in candidates if address is not None]
        return {name: tuple(addresses) for name, addresses in found.items()}

    def host_key(self, machine: str) -> str:
        """The machine's public host key (`ssh-ed25519 AAAA…`)."""
        return self._public[HOST_KEY + machine]

    def key_file(self, secret: str) -> Path:
        """The private key file of a generated secret."""
        return self.places.key(secret)

    async def on(self, machine: str, *argv: str, timeout_s: float | None = None) -> Completed:
        """Run a command on a machine (or in a helper's namespace, with this machine's files)."""
        if machine in self.machines:
            command = self.machines[machine].command(*argv)
        elif machine == CONTROL:
            command = argv
        else:
            command = inside(machine, *argv)
        return await self._transport.run(Command(command, env=self.environment, timeout_s=timeout_s))

    def say(self, text: str) -> None:
        """Tell whoever asked for the world what it did."""
        self._tell_caller(f"world: {text}")

    async def disturb(self, wanted: Faults, *, forget_connections: bool) -> None:
        """Let these be the faults, and no others; perhaps the router also forgets the connections that it tracks."""
        await self._script("fault", _fed(ROUTER, rules(wanted)))
        self.faults = wanted
        self._trust()
        if forget_connections:
            await self._script("forget", quoted(inside(ROUTER, *standard(conntrack))))

    async def renumber(self, host: str, address: IPv4Address) -> None:
        """Give a stand-in another address on its site; the old one is gone, and names and known hosts follow.

        Raises UsageError for one that is taken.
        """
        taken = [name for name, known in self.addresses().items() if str(address) in known]
        if taken:
            raise UsageError(f"{address} is already that of {taken[0]}")
        before = next(port for port in self.topology.ports if (port.namespace, port.interface) == (host, "eth0"))
        hosts = {**self.rehearsal.hosts, host: self.rehearsal.hosts[host].model_copy(update={"address": address})}
        self.rehearsal = self.rehearsal.model_copy(update={"hosts": hosts})
        self.topology = topology.lay_out(self.rehearsal)
        assert before.address is not None, "the address was one of its own"
        length = before.address.network.prefixlen
        lines = [f"addr del {before.address} dev eth0", f"addr add {address}/{length} dev eth0"]
        lines += [f"route replace {route.to} via {route.via}" for route in self.topology.only(host).routes]
        await self._script(f"renumber {host}", _batch(host, "\n".join(lines) + "\n"))
        self._trust()

    async def members(self) -> tuple[str, ...]:
        """Whom the world's tailnet knows."""
        servers = [name for name, host in self.rehearsal.hosts.items() if services_of(host, Headscale)]
        known = await asyncio.gather(*(self._services.members(self.machines[name]) for name in servers))
        return tuple(member for names in known for member in names)

    async def start_service(self, host: str, name: str) -> None:
        """Start a service of a stand-in again."""
        service = self.rehearsal.hosts[host].services[name]
        await self._services.start(self.machines[host], service, topology.address_of(self.rehearsal, host))

    async def reboot(self, host: str) -> None:
        """Kill all of a stand-in, and let it come up with its files and its cables, but nothing that only ran."""
        async with self._following:
            old = self.machines[host]
            await self.clocks.forget(host)
            await self._services.stop(host)
            os.kill(old.pid, signal.SIGKILL)
            await old.process.wait()
            cables = self.topology.only(host)
            pulled = [f"ip -n {port.far} link del {port.far_interface} 2>/dev/null || true" for port in cables.ports]
            await self._script(f"pull the cables of {host}", "\n".join([f"ip netns del {host}", *pulled]))
            forget_running(old.folder)
            self.machines[host] = await self._boot(host)
            await self._lay(cables)
            again = [f"ip -n {host} {one.make}" for one in sorted(self._settings) if one.namespace == host]
            await self._script(f"configure {host}", "\n".join(again))
            await self._services.start_all({host: self.machines[host]}, self.rehearsal)
            self._vpn_ends.forget(host)
            await self._vpn_ends.follow(ends_of(self._state, self.rehearsal), self.machines)

    async def follow_cloud(self) -> None:
        """Give every namespace the addresses and routes that the cloud's present state asks for."""
        if self.aws is None:
            return
        async with self._following:
            before, state = self._state, await asyncio.to_thread(self.aws.state)
            wanted = networks.settings(state, self.rehearsal, self.topology)
            edge = networks.edge_filter(state)
            if (wanted, edge, state.vpns) == (self._settings, networks.edge_filter(before), before.vpns):
                return
            gone, new = sorted(self._settings - wanted, reverse=True), sorted(wanted - self._settings)
            lines = [f"ip -n {one.namespace} {one.undo} 2>/dev/null || true" for one in gone]
            lines += [f"ip -n {one.namespace} {one.make}" for one in new]
            self._state, self._settings = state, wanted
            await self._script("follow the cloud", "\n".join([*lines, _fed(ROUTER, edge)]))
            self._trust()
            for line in moves(before, state, self.rehearsal):
                self.say(line)
            await self._vpn_ends.follow(ends_of(state, self.rehearsal), self.machines)

    async def _start(self) -> None:
        require(self.rehearsal)
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
        self._trust()
        server = inside(ROUTER, *standard(nameserver, str(self.places.zone)))
        self._name_server, self._given = await asyncio.gather(
            listening(self._spawner, ROUTER, server), self._services.start_all(self.machines, self.rehearsal)
        )

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
        found = await self._transport.run(Command(("sh", "-c", "command -v sshd || ls /usr/sbin/sshd")))
        self._sshd = found.text().strip()
        keys = tuple(key for name, key in self._public.items() if not name.startswith(HOST_KEY))
        path = self._outer.get("PATH", os.defpath)
        sources = Sources(self._ground.folder, self._ground.images, self.places.images, path, keys)
        self._services.provide(self.rehearsal, sources, self.places.tools)
        for name in self.topology.machines:
            host_key = self.places.key(HOST_KEY + name).read_text()
            server = topology.name_server(self.rehearsal, name)
            furnish(
                self.places.machine(name),
                {
                    "etc/hostname": f"{name}\n",
                    "etc/hosts": self._hosts() if server is None else names.own_hosts(name),
                    "etc/resolv.conf": names.resolver_settings(server),
                    "etc/ssh/authorized_keys": "".join(f"{key}\n" for key in keys),
                    "etc/ssh/ssh_host_ed25519_key": host_key,
                    **own_texts(self.rehearsal.hosts[name]),
                },
                private_folders(self.rehearsal.hosts[name]),
            )
        booted = await asyncio.gather(*(self._boot(name) for name in self.topology.machines))
        self.machines = {machine.name: machine for machine in booted}

    async def _boot(self, name: str) -> Machine:
        """Start a furnished machine; one that was there before has ended."""
        own = await asyncio.to_thread(belongings, name, self.rehearsal.hosts[name], self.places, self._ground)
        return await boot(name, self.places.machine(name), own, self._sshd, self._spawner)

    async def _wire(self) -> None:
        """Name the namespaces, lay the cables, set addresses and routes, and start to forward."""
        add = [f"ip netns attach {CONTROL} {os.getpid()}", *(f"ip netns add {name}" for name in self.topology.helpers)]
        await self._script("name the namespaces", "\n".join(add))
        await self._lay(self.topology)
        await self._replace("hosts", names.own_hosts(CONTROL))
        router = topology.router_control_address(self.rehearsal)
        await self._replace("resolv.conf", names.resolver_settings(router.ip))
        if self.rehearsal.aws:
            await self._script("guard the edge", _fed(ROUTER, networks.edge_filter(self._state)))

    async def _replace(self, name: str, text: str) -> None:
        """Give the control namespace a file of its own in /etc, over this machine's or where a link there leads."""
        target = (Path("/etc") / name).resolve()
        if target.is_file():
            (self.places.root / name).write_text(text)
            await self._script(f"replace {name}", f"mount --bind {self.places.root / name} {target}")
        elif target.is_relative_to("/run"):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)

    async def _lay(self, cables: topology.Topology) -> None:
        """Name the namespaces of machines, and lay cables."""
        attach = [f"ip netns attach {name} {self.machines[name].pid}" for name in cables.machines]
        batches = [_batch(name, lines) for name, lines in topology.batch(cables).items()]
        router = topology.router_control_address(self.rehearsal)
        settled = [_batch(name, lines) for name, lines in topology.settle(cables, router).items()]
        forward = [
            f"ip netns exec {name} sh -c 'cd /proc/sys/net/ipv4; echo 1 >ip_forward; "
            "for c in conf/*; do echo 0 >$c/send_redirects; echo 0 >$c/rp_filter; done'"
            for name in cables.forwarding
        ]
        await self._script("wire the world", "\n".join([*attach, *batches, *forward, *settled]))

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
                self.say(f"could not follow the cloud: {error}")

        self.aws = AwsServer(pool, moved, machine_images(self.rehearsal))
        await asyncio.to_thread(self.aws.start)

    def _provide(self) -> None:
        """Write what the inner Skyspan reads, and settle its environment."""
        generated = [name for name, value in self.rehearsal.secrets.items() if not isinstance(value, GivenSecret)]
        private = {name: self.places.key(name).read_text() for name in generated}
        self.places.secrets.touch(mode=0o600)
        self.places.secrets.write_text(inner.secrets_document(self.rehearsal, private))
        url = self.aws.url if self.aws else ""
        if url:
            self.places.override.write_text(inner.override(url))
        self._trust()
        given = inner.environment(self._outer, self.rehearsal, self.places, url, self._public)
        self.environment = {**given, **self._given}

    def _trust(self) -> None:
        """Write what follows the machines' addresses: each one's host key for those that are its own at this moment,
        no others, and what the name server answers."""
        present = {name: known for name, known in self.addresses().items() if known}
        lines = [f"{','.join((name, *known))} {self.host_key(name)}" for name, known in present.items()]
        _swap(self.places.known_hosts, "".join(f"{line}\n" for line in lines))
        _swap(self.places.zone, names.zone({name: known[0] for name, known in present.items()}, self.faults.names))

    def _hosts(self) -> str:
        """The /etc/hosts of a machine that can reach no name server: all whose address is known from the start."""
        known = {name: topology.address_of(self.rehearsal, name) for name in self.rehearsal.hosts}
        lines = [f"{address} {name}\n" for name, address in known.items() if address is not None]
        return "".join([names.LOCALHOST, *lines])

    async def _script(self, what: str, lines: str) -> None:
        """Run shell lines, stopping at the first that fails; raises ToolFailedError with its words."""
        completed = await self._transport.run(Command(("sh", "-eu"), stdin=lines.encode(), timeout_s=60.0))
        if not completed.ok:
            raise ToolFailedError(f"the stand-in world failed: {what}", detail=completed.last_words())

    async def _stop(self) -> None:
        if self.aws is not None:
            await asyncio.to_thread(self.aws.stop)
        for name in self.clocks.stepped():
            await self.clocks.forget(name)
        await asyncio.gather(*(self._services.stop(name) for name in self.machines))
        if self._name_server is not None:
            await self._name_server.stop()
        await asyncio.gather(*(machine.process.stop() for machine in self.machines.values()))
        names = (*self.topology.machines, *self.topology.helpers, CONTROL)
        lines = [*(f"ip netns del {name}" for name in names), "ip link del world"]
        lines += [f"umount /etc/{name}" for name in ("hosts", "resolv.conf")]
        with suppress(ToolFailedError):
            await self._script("take down", "\n".join(f"{line} 2>/dev/null || true" for line in lines))


def _swap(file: Path, text: str) -> None:
    """Replace a file in one step: somebody may be reading it."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)


def _batch(namespace: str, lines: str) -> str:
    return f"ip -n {namespace} -batch - <<'END'\n{lines}END"


def _fed(namespace: str, ruleset: str) -> str:
    """A line that loads an nftables ruleset in one transaction."""
    return f"ip netns exec {namespace} nft -f - <<'END'\n{ruleset}END"
