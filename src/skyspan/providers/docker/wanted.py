"""What the settings ask for, container by container and network by network: names, the docker command's arguments, and
the digests by which a later look knows what has changed (pure)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from types import MappingProxyType

from skyspan.contracts.context import ReadContext
from skyspan.model.address import StageAddress
from skyspan.model.error import SpecError
from skyspan.model.secret import Secret
from skyspan.model.value import digest, revealed
from skyspan.providers.archive import Entry, archived
from skyspan.providers.docker.building import WantedImage
from skyspan.providers.docker.spec import ContainerSettings, DockerSpec, FileSettings, Mount, NetworkSettings
from skyspan.providers.dockerengine.commands import Scope, Sight
from skyspan.providers.dockerengine.parse import DIGEST, KEY, OWNER


@dataclass(frozen=True, slots=True)
class WantedNetwork:
    """A network: `argv` follows `docker network create`; empty for one that somebody else makes."""

    key: str
    name: str
    digest: str
    argv: tuple[str, ...]
    settings: NetworkSettings

    @property
    def external(self) -> bool:
        """Whether somebody else makes it."""
        return self.settings.external


@dataclass(frozen=True, slots=True)
class WantedContainer:
    """A container: `argv` follows `docker create`, `joins` follow `docker network connect` once it is made; its first
    network comes with `argv`, and with `first_join` when it was lost.

    `given` is its environment and its files, as standard input of the script that makes it.
    """

    key: str
    name: str
    image: str
    digest: str
    argv: tuple[str, ...]
    first_join: tuple[str, ...]
    joins: tuple[tuple[str, ...], ...]
    networks: tuple[str, ...]
    given: Secret
    has_files: bool
    ends: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that a stage asks for. `volumes` are names on the machine by those in the settings, `built` the images that
    it builds, by their names."""

    owner: str
    networks: tuple[WantedNetwork, ...]
    volumes: Mapping[str, str]
    built: Mapping[str, WantedImage]
    containers: Mapping[str, WantedContainer]
    levels: tuple[tuple[str, ...], ...]
    remove_volumes: bool

    @property
    def label(self) -> str:
        """The filter that finds what the stage made."""
        return f"{OWNER}={self.owner}"

    @property
    def names(self) -> tuple[str, ...]:
        """The containers' names on the machine."""
        return tuple(one.name for one in self.containers.values())

    @property
    def images(self) -> tuple[str, ...]:
        """The images that are needed."""
        return tuple(dict.fromkeys(one.image for one in self.containers.values()))

    @property
    def others_images(self) -> tuple[str, ...]:
        """Those of them that are not built here."""
        return tuple(image for image in self.images if image not in self.built)

    def sight(self, scope: Scope = Scope.OWN) -> Sight:
        """A look at what is asked for."""
        networks = tuple(one.name for one in self.networks)
        own = self.volumes and scope is Scope.OWN
        return Sight(self.names, self.images, networks, scope, ("volumes",) if own else ())

    def settings(self, key: bytes) -> str:
        """Changes whenever anything that is asked for does."""
        parts = [
            [[one.name, one.digest] for one in self.networks],
            sorted(self.volumes.values()),
            [[one.name, one.digest] for one in self.containers.values()],
            self.remove_volumes,
        ]
        return digest(parts, key)


def wanted(
    spec: DockerSpec, ctx: ReadContext, sources: Mapping[str, bytes], built: Mapping[str, WantedImage], key: bytes
) -> Wanted:
    """What `spec` asks for. `sources` are the contents of the files it names, `built` the images by container; `key`
    seals the digests, as whoever may ask the daemon can read them. Raises SpecError."""
    networks = tuple(_network(name, one, ctx.address, key) for name, one in spec.networks.items())
    volumes = {name: one.name or _name(ctx.address, name) for name, one in spec.volumes.items()}
    images = {name: one.image or built[name].name for name, one in spec.containers.items()}
    scene = _Scene(spec, ctx, {one.key: one for one in networks}, volumes, images, sources, key)
    containers = {name: scene.container(name, one) for name, one in spec.containers.items()}
    _refuse_twins([one.name for one in containers.values()], "containers")
    _refuse_twins([one.name for one in networks], "networks")
    return Wanted(
        owner=str(ctx.address),
        networks=networks,
        volumes=MappingProxyType(volumes),
        built=MappingProxyType({one.name: one for one in built.values()}),
        containers=MappingProxyType(containers),
        levels=spec.levels(),
        remove_volumes=spec.remove_volumes,
    )


def _name(address: StageAddress, name: str) -> str:
    return f"{address.deployment.name}-{address.name}-{name}"


def _refuse_twins(names: list[str], what: str) -> None:
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise SpecError(f"two {what} of the stage would both be called {', '.join(twins)}")


def _network(key: str, settings: NetworkSettings, address: StageAddress, seal: bytes) -> WantedNetwork:
    if settings.external:
        name = settings.name or key
        return WantedNetwork(key, name, digest(["external", name], seal), (), settings)
    name = settings.name or _name(address, key)
    words: list[str] = ["--driver", "bridge"]
    if settings.subnet is not None:
        gateway = settings.gateway or str(ip_network(settings.subnet)[1])
        words += ["--subnet", settings.subnet, "--gateway", gateway]
    if settings.subnet6 is not None:
        words += ["--ipv6", "--subnet", settings.subnet6]
    if settings.bridge is not None:
        words += ["-o", f"com.docker.network.bridge.name={settings.bridge}"]
    if settings.mtu is not None:
        words += ["-o", f"com.docker.network.driver.mtu={settings.mtu}"]
    if settings.internal:
        words.append("--internal")
    words += _labels(settings.labels)
    found = digest([name, words], seal)
    return WantedNetwork(key, name, found, (*words, *_marks(address, key, found), name), settings)


@dataclass(frozen=True, slots=True)
class _Scene:
    spec: DockerSpec
    ctx: ReadContext
    networks: Mapping[str, WantedNetwork]
    volumes: Mapping[str, str]
    images: Mapping[str, str]
    sources: Mapping[str, bytes]
    key: bytes

    def container(self, key: str, one: ContainerSettings) -> WantedContainer:
        name = one.name or _name(self.ctx.address, key)
        words = [*_plain(one), *self._mounts(key, one)]
        words += ["--hostname", one.hostname or _hostname(key)] if one.network_mode != "host" else []
        ends = [(self.networks[net].name, _joining(key, one, net)) for net in one.networks]
        if ends:
            words += ["--network", ends[0][0], *_prefixed("--network-alias", ends[0][1])]
        elif one.network_mode is not None:
            words += ["--network", one.network_mode]
        first_join = tuple(_prefixed("--alias", ends[0][1])) if ends else ()
        joins = tuple((*_prefixed("--alias", end), net) for net, end in ends[1:])
        files = [self._file(path, file) for path, file in one.files.items()]
        env = "".join(f"{variable}={revealed(value)}\n" for variable, value in one.env.items())
        program = [self.images[key], *(one.command or ())]
        contents = [[file.path, file.content.hex(), file.mode, file.uid, file.gid] for file in files]
        nets = [self.networks[net].digest for net in one.networks]
        found = digest([name, words, program, joins, env, contents, nets], self.key)
        return WantedContainer(
            key=key,
            name=name,
            image=self.images[key],
            digest=found,
            argv=("--name", name, *_marks(self.ctx.address, key, found), *words, *program),
            first_join=first_join,
            joins=joins,
            networks=tuple(net for net, _ in ends),
            given=_given(env, files),
            has_files=bool(files),
            ends=one.oneshot,
        )

    def _mounts(self, key: str, one: ContainerSettings) -> Iterator[str]:
        for mount in one.mounts:
            yield "--mount"
            yield _mount(mount, self._origin(key, mount))

    def _origin(self, key: str, mount: Mount) -> str:
        if mount.volume is not None:
            return self.volumes.get(mount.volume, mount.volume)
        if mount.bind is None or mount.bind.startswith("/"):
            return mount.bind or ""
        if self.spec.host is not None or (self.spec.engine is not None and self.spec.engine.remote):
            raise SpecError(
                f"container {key}: the path {mount.bind!r} of the composition's folder is not on the Docker host",
                hint="put the file into the container with `files`, or give an absolute path of the host",
            )
        return str((self.ctx.folder / mount.bind).resolve())

    def _file(self, path: str, file: FileSettings) -> Entry:
        content = str(revealed(file.content)).encode() if file.source is None else self.sources[file.source]
        return Entry(path.lstrip("/"), content, int(file.mode, 8), file.uid, file.gid)


def _given(env: str, files: list[Entry]) -> Secret:
    """One line of base64 with the environment, then the archive."""
    archive = archived(sorted(files, key=lambda one: one.path)) if files else b""
    return Secret(base64.b64encode(env.encode()).decode() + "\n" + base64.encodebytes(archive).decode())


def _plain(one: ContainerSettings) -> Iterator[str]:
    """What needs nothing but the container's own settings."""
    named: list[tuple[str, object]] = [
        ("--restart", one.restart if one.restart != "no" else None),
        ("--user", one.user),
        ("--workdir", one.workdir),
        ("--entrypoint", one.entrypoint),
        ("--memory", one.memory),
        ("--cpus", one.cpus),
        ("--stop-signal", one.stop_signal),
        ("--stop-timeout", one.stop_timeout),
    ]
    for option, value in named:
        if value is not None:
            yield from (option, f"{value:g}" if isinstance(value, float) else str(value))
    for option, given in (("--init", one.init), ("--read-only", one.read_only), ("--privileged", one.privileged)):
        if given:
            yield option
    for option, values in (
        ("--publish", one.ports),
        ("--cap-add", one.cap_add),
        ("--cap-drop", one.cap_drop),
        ("--device", one.devices),
        ("--dns", one.dns),
        ("--sysctl", tuple(f"{name}={value}" for name, value in sorted(one.sysctls.items()))),
        ("--add-host", tuple(f"{name}:{value}" for name, value in sorted(one.extra_hosts.items()))),
    ):
        for value in values:
            yield from (option, value)
    yield from _labels(one.labels)
    if one.healthcheck is not None:
        check = one.healthcheck
        yield from ("--health-cmd", check.command, "--health-retries", str(check.retries))
        for option, seconds in (
            ("--health-interval", check.interval),
            ("--health-timeout", check.timeout),
            ("--health-start-period", check.start_period),
        ):
            if seconds is not None:
                yield from (option, f"{round(seconds * 1000)}ms")


def _mount(mount: Mount, origin: str) -> str:
    if mount.tmpfs is not None:
        return f"type=tmpfs,target={mount.target},tmpfs-size={mount.tmpfs}"
    kind = "bind" if mount.bind is not None else "volume"
    return f"type={kind},source={origin},target={mount.target}" + (",readonly" if mount.read_only else "")


def _joining(key: str, one: ContainerSettings, net: str) -> list[str]:
    """Aliases as they are, addresses with their options."""
    end = one.networks[net]
    words = list(dict.fromkeys((key, *end.aliases)))
    words += ["--ip", end.ipv4] if end.ipv4 is not None else []
    return words + (["--ip6", end.ipv6] if end.ipv6 is not None else [])


def _prefixed(option: str, words: list[str]) -> list[str]:
    """`words` with the option before every alias."""
    found: list[str] = []
    after = ""
    for word in words:
        found += [word] if word.startswith("--") or after.startswith("--") else [option, word]
        after = word
    return found


def _labels(labels: Mapping[str, str]) -> list[str]:
    return [word for name, value in sorted(labels.items()) for word in ("--label", f"{name}={value}")]


def _marks(address: StageAddress, key: str, found: str) -> list[str]:
    return _labels({OWNER: str(address), KEY: key, DIGEST: found})


def _hostname(key: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", key)
