"""The settings of a `docker` stage."""

from __future__ import annotations

import re
import shlex
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from skyspan.model.composition import Model, Seconds
from skyspan.model.secret import Secret
from skyspan.providers.dockerengine.spec import EngineSpec, SecretText, Text

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,62}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_PORT = re.compile(
    r"((?P<address>\[[0-9A-Fa-f:.]+\]|\d+\.\d+\.\d+\.\d+):)?((?P<host>\d+)?:)?(?P<port>\d+)(/(tcp|udp|sctp))?"
)
_SIZE = re.compile(r"\d+[bkmgBKMG]?")
_RESTART = re.compile(r"no|always|unless-stopped|on-failure(:\d+)?")
_INTERFACE = re.compile(r"[A-Za-z0-9_.-]{1,15}")


def _words(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(shlex.split(value))
    return value


def _matching(pattern: re.Pattern[str], words: str) -> AfterValidator:
    def check(text: str) -> str:
        if pattern.fullmatch(text) is None:
            msg = f"{text!r} is no {words}"
            raise ValueError(msg)
        return text

    return AfterValidator(check)


def _network(text: str) -> str:
    ip_network(text)
    return text


def _address(text: str) -> str:
    ip_address(text)
    return text


Words: TypeAlias = Annotated[tuple[Text, ...], BeforeValidator(_words)]
Name: TypeAlias = Annotated[str, _matching(_NAME, "name that Docker takes: letters, digits, _ . -, two at least")]
Key: TypeAlias = Annotated[str, _matching(_KEY, "name: letters, digits, _ . and -")]
Size: TypeAlias = Annotated[Text, _matching(_SIZE, "size such as 256m")]
Port: TypeAlias = Annotated[Text, _matching(_PORT, "port such as 80, 8080:80, 127.0.0.1:8080:80 or 53:53/udp")]
Subnet: TypeAlias = Annotated[str, AfterValidator(_network)]
Address: TypeAlias = Annotated[str, AfterValidator(_address)]


class Mount(Model):
    """Something of the machine in the container: one of `bind`, `volume` and `tmpfs`."""

    target: str
    """Where in the container; absolute."""
    bind: str | None = None
    """A path of the machine. Absolute; on this machine it may also be relative to the composition."""
    volume: str | None = None
    """A volume: one of the stage's `volumes`, or the name of one that is there already."""
    tmpfs: Size | None = None
    """Memory of this size."""
    read_only: bool = False
    """The container cannot write to it."""

    @model_validator(mode="after")
    def _one_kind(self) -> Mount:
        if sum(kind is not None for kind in (self.bind, self.volume, self.tmpfs)) != 1:
            msg = "a mount is one of `bind`, `volume` and `tmpfs`"
            raise ValueError(msg)
        if not self.target.startswith("/") or any("," in str(path) for path in (self.target, self.bind, self.volume)):
            msg = f"{self.target!r}: a mount's target is an absolute path, and no path has a comma"
            raise ValueError(msg)
        return self


class FileSettings(Model):
    """A file that is put into the container before it starts: one of `content` and `source`."""

    content: str | Secret | None = None
    """What it holds. Unlike `env`, this shows in no `docker inspect`: the way to hand over secrets."""
    source: str | None = None
    """A file of the composition's folder, relative to it."""
    mode: str = Field(default="0644", pattern=r"^0?[0-7]{3,4}$")
    """Its permissions, in octal digits."""
    uid: int = Field(default=0, ge=0)
    """User that it belongs to, as a number."""
    gid: int = Field(default=0, ge=0)
    """Group that it belongs to, as a number."""

    @model_validator(mode="after")
    def _one_origin(self) -> FileSettings:
        if (self.content is None) == (self.source is None):
            msg = "a file is made of `content` or of `source`"
            raise ValueError(msg)
        return self


class Joining(Model):
    """How a container is in a network."""

    aliases: tuple[Key, ...] = ()
    """More names that the others in the network know it by; its name in the settings always is one."""
    ipv4: Address | None = None
    """Its address there; the network needs a `subnet`."""
    ipv6: Address | None = None
    """Its IPv6 address there."""


class Healthcheck(Model):
    """A command in the container that tells whether it works."""

    test: str | tuple[Text, ...]
    """The command, run by the image's shell; exit status 0 is healthy."""
    interval: Seconds = 10.0
    """Time between two checks."""
    timeout: Seconds = 5.0
    """How long one may take."""
    retries: int = Field(default=3, ge=1)
    """Failures in a row that make it unhealthy."""
    start_period: Seconds | None = None
    """How long from the start failures do not count."""

    @property
    def command(self) -> str:
        """The test as a text for the shell."""
        return self.test if isinstance(self.test, str) else shlex.join(self.test)


def _open(value: Any) -> Any:
    if isinstance(value, Secret):
        msg = "an argument of a build stays readable in the image (docker history): a secret cannot be one; give it \
to the container with `files`"
        raise ValueError(msg)
    return value


class BuildSettings(Model):
    """An image that is built from a folder of the composition, on the daemon that runs the container.

    What its `.dockerignore` names is left out. A change to anything else in the folder builds it anew. It is called
    `localhost/skyspan/DEPLOYMENT-STAGE`, and goes with the stage.
    """

    context: str = "."
    """The folder, relative to the composition's; it goes with the build to wherever the daemon is."""
    dockerfile: str = "Dockerfile"
    """What says how it is built, relative to the context."""
    target: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    """The stage of the Dockerfile that it is to be; default: the last one."""
    args: dict[str, Annotated[Text, BeforeValidator(_open)]] = Field(default_factory=dict)
    """Values for the Dockerfile's `ARG`. Whoever has the image can read them: secrets are refused."""

    @model_validator(mode="after")
    def _inside(self) -> BuildSettings:
        for path in (self.context, self.dockerfile):
            if not path or path.startswith("/") or ".." in path.split("/"):
                msg = f"{path!r} is not in the composition's folder, or not in the context"
                raise ValueError(msg)
        for name in self.args:
            if _VARIABLE.fullmatch(name) is None:
                msg = f"{name!r} cannot be an argument of a build"
                raise ValueError(msg)
        return self


class ContainerSettings(Model):
    """One container."""

    image: str | None = Field(default=None, min_length=1, pattern=r"^[^\s-]\S*$")
    """Its image, by name or id; or `build`."""
    build: BuildSettings | None = None
    """Instead of `image`: a folder from which the image is built; the folder's name will do."""
    name: Name | None = None
    """Its name on the machine; default: DEPLOYMENT-STAGE-NAME."""
    command: Words | None = None
    """What it runs, instead of what its image says: a list, or a text split as a shell would."""
    entrypoint: Text | None = None
    """The program that `command` is handed to, instead of the image's."""
    env: dict[str, SecretText] = Field(default_factory=dict)
    """Environment. Secrets reach the daemon by standard input, but whoever may ask Docker there reads them with `docker
    inspect`: `files` keep them better."""
    ports: tuple[Port, ...] = ()
    """Ports that are published: `8080:80`, `127.0.0.1:8080:80`, `53:53/udp`, or `80` for a port that Docker chooses."""
    mounts: tuple[Mount, ...] = ()
    """Paths of the machine, volumes and memory in it."""
    files: dict[str, FileSettings] = Field(default_factory=dict)
    """Files that are put into it, by absolute path; they go with the container, wherever its daemon is."""
    networks: dict[str, Joining] = Field(default_factory=dict)
    """Networks of the stage that it is in; without any, Docker's default one. A list of names will do."""
    network_mode: Literal["host", "none"] | None = None
    """Instead of networks: the machine's own, or none."""
    depends_on: tuple[str, ...] = ()
    """Containers of the stage that must be up, and healthy where they have a check, before it starts."""
    oneshot: bool = False
    """It does its work and ends with status 0, instead of going on running."""
    restart: Annotated[str, _matching(_RESTART, "restart policy: no, always, unless-stopped, on-failure[:N]")] = "no"
    """Whether Docker starts it again when it ends: no, always, unless-stopped, on-failure or on-failure:N."""
    healthcheck: Healthcheck | None = None
    """Tells whether it works, instead of what its image says."""
    user: str | None = None
    """User that it runs as."""
    workdir: str | None = None
    """Folder that it runs in."""
    hostname: str | None = None
    """Its own name for itself; default: its name in the settings."""
    labels: dict[str, Text] = Field(default_factory=dict)
    """More labels."""
    cap_add: tuple[str, ...] = ()
    """Powers that it gets: NET_ADMIN, …"""
    cap_drop: tuple[str, ...] = ()
    """Powers that it does without."""
    privileged: bool = False
    """All powers, and the machine's devices."""
    devices: tuple[str, ...] = ()
    """Devices of the machine: `/dev/net/tun`, or `/dev/ttyUSB0:/dev/modem:rw`."""
    sysctls: dict[str, Text] = Field(default_factory=dict)
    """Kernel settings of its namespaces: `net.ipv4.ip_forward: 1`."""
    extra_hosts: dict[str, str] = Field(default_factory=dict)
    """More names in its /etc/hosts, with their addresses."""
    dns: tuple[Address, ...] = ()
    """Name servers."""
    memory: Size | None = None
    """The most memory it may use: `256m`."""
    cpus: float | None = Field(default=None, gt=0)
    """The most processor time it may use: 0.5 is half of one."""
    init: bool = False
    """A small first process passes signals on and reaps its children."""
    read_only: bool = False
    """Its root file system cannot be written to."""
    stop_signal: str | None = None
    """Signal that asks it to end."""
    stop_timeout: int = Field(default=10, ge=0, le=3600)
    """Seconds it has to end before it is killed."""

    @field_validator("build", mode="before")
    @classmethod
    def _folder(cls, value: Any) -> Any:
        return {"context": value} if isinstance(value, str) else value

    @field_validator("networks", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return {name: {} for name in value}
        if isinstance(value, dict):
            return {name: {} if joining is None else joining for name, joining in value.items()}
        return value

    @field_validator("env")
    @classmethod
    def _variables(cls, env: dict[str, str | Secret]) -> dict[str, str | Secret]:
        for name, value in env.items():
            text = value.reveal() if isinstance(value, Secret) else value
            if _VARIABLE.fullmatch(name) is None or "\0" in text:
                msg = f"{name!r} cannot be an environment variable"
                raise ValueError(msg)
            if "\n" in text or "\r" in text:
                msg = f"the value of {name} has several lines, which docker's command does not take: use `files`"
                raise ValueError(msg)
        return env

    @model_validator(mode="after")
    def _whole(self) -> ContainerSettings:
        if (self.image is None) == (self.build is None):
            msg = "a container runs an `image` or what is made by `build`"
            raise ValueError(msg)
        if self.network_mode is not None and self.networks:
            msg = "`network_mode` stands instead of `networks`"
            raise ValueError(msg)
        for path in self.files:
            if not path.startswith("/") or path.endswith("/") or ".." in path.split("/"):
                msg = f"{path!r}: files are put at absolute paths"
                raise ValueError(msg)
        if self.oneshot and self.restart in ("always", "unless-stopped"):
            msg = f"a container that ends is not restarted: {self.restart}"
            raise ValueError(msg)
        return self


class NetworkSettings(Model):
    """One network of containers."""

    name: Name | None = None
    """Its name on the machine; default: DEPLOYMENT-STAGE-NAME."""
    external: bool = False
    """It is there already, made by somebody else (a lab's management network, say); only `name` goes with it."""
    subnet: Subnet | None = None
    """Its addresses; default: what Docker has free."""
    gateway: Address | None = None
    """The machine's address in it; default: the first one."""
    subnet6: Subnet | None = None
    """Its IPv6 addresses; without, it has none."""
    bridge: Annotated[str, _matching(_INTERFACE, "name of an interface: 15 characters at most")] | None = None
    """Name of its bridge on the machine, for routes and firewalls to name; default: Docker's choice."""
    internal: bool = False
    """Nothing in it reaches the outside."""
    mtu: int | None = Field(default=None, ge=576, le=65535)
    """The largest packet in it, where a link behind it carries less than 1500."""
    labels: dict[str, Text] = Field(default_factory=dict)
    """More labels."""

    @model_validator(mode="after")
    def _whole(self) -> NetworkSettings:
        others = [name for name in type(self).model_fields if name not in ("name", "external")]
        if self.external and any(getattr(self, name) for name in others):
            msg = "an external network has no settings but its `name`"
            raise ValueError(msg)
        if self.gateway is not None and (
            self.subnet is None or ip_address(self.gateway) not in ip_network(self.subnet)
        ):
            msg = f"the gateway {self.gateway} is not in the network's `subnet`"
            raise ValueError(msg)
        return self


class VolumeSettings(Model):
    """One volume."""

    name: Name | None = None
    """Its name on the machine; default: DEPLOYMENT-STAGE-NAME."""


class DockerSpec(EngineSpec):
    """Containers, and the networks and volumes that they share, on one Docker daemon."""

    containers: dict[Key, ContainerSettings] = Field(min_length=1)
    """Containers by name: others of the stage know them by it, on the networks they share."""
    networks: dict[Key, NetworkSettings] = Field(default_factory=dict)
    """Networks by name."""
    volumes: dict[Key, VolumeSettings] = Field(default_factory=dict)
    """Volumes by name."""
    pull: Literal["never", "missing", "always"] = "missing"
    """Whether images are fetched: `missing` fetches those that are not there, `never` makes that an error, `always`
    asks the registry at every apply. What a Dockerfile begins `FROM` its builder fetches where it is not there."""
    remove_volumes: bool = False
    """Destroying removes the stage's volumes with what is in them; otherwise they stay, and are found again."""

    @field_validator("networks", "volumes", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: {} if one is None else one for name, one in value.items()}
        return value

    @model_validator(mode="after")
    def _references(self) -> DockerSpec:
        for name, one in self.containers.items():
            unknown = sorted(set(one.networks) - set(self.networks))
            if unknown:
                msg = f"container {name}: the stage has no network {', '.join(unknown)}"
                raise ValueError(msg)
            missing = sorted(set(one.depends_on) - set(self.containers))
            if missing:
                msg = f"container {name} depends on {', '.join(missing)}, which the stage does not have"
                raise ValueError(msg)
            fixed = [net for net, end in one.networks.items() if end.ipv4 and not self.networks[net].external]
            for net in fixed:
                subnet = self.networks[net].subnet
                if subnet is None or ip_address(one.networks[net].ipv4 or "") not in ip_network(subnet):
                    msg = f"container {name}: {one.networks[net].ipv4} is not in a `subnet` of network {net}"
                    raise ValueError(msg)
        self.levels()
        return self

    def levels(self) -> tuple[tuple[str, ...], ...]:
        """Containers in the order in which they start: those of a level at once. Raises ValueError for a circle."""
        left = dict(self.containers)
        done: set[str] = set()
        found: list[tuple[str, ...]] = []
        while left:
            free = tuple(name for name, one in left.items() if set(one.depends_on) <= done)
            if not free:
                msg = f"containers depend on each other in a circle: {', '.join(left)}"
                raise ValueError(msg)
            found.append(free)
            done |= set(free)
            for name in free:
                del left[name]
        return tuple(found)
