"""What a person writes: the composition, its inputs, hosts, stages and policies.

Fields that may hold expressions (`${{ … }}`) keep the text as written; `model.expression` gives it meaning.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from skyspan.model.address import NAME_PATTERN
from skyspan.model.value import Value

Name: TypeAlias = Annotated[str, Field(pattern=NAME_PATTERN)]
OutputName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,127}$")]

_UNITS = MappingProxyType({"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0})
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def seconds(text: object) -> object:
    """A duration as written (`90`, `1m30s`, `500ms`) in seconds; raises ValueError with what is expected."""
    if isinstance(text, bool) or not isinstance(text, int | float | str):
        msg = "expected a duration such as 30s, 5m or 1h30m"
        raise ValueError(msg)
    if isinstance(text, int | float):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        msg = f"{text!r} is no duration: write it as 30s, 5m or 1h30m"
        raise ValueError(msg)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


Seconds: TypeAlias = Annotated[
    float,
    BeforeValidator(seconds),
    Field(gt=0),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "examples": ["30s", "5m"]}]}
    ),
]


class Model(BaseModel):
    """Strict for people: frozen, unknown keys refused, every field documented by the docstring beneath it.

    Built when first used, and documented when asked (`model.documentation`): start-up is budgeted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True)


class InputDeclaration(Model):
    """An input of the composition."""

    type: str = "string"
    """Its type: string, number, bool, ip, cidr, endpoint, url, port, public_key, secret, list<…>, map<…> or any."""
    default: Value = None
    """The value when nobody gives one; without a default the input is required."""
    description: str = ""
    """What it is for."""
    sensitive: bool = False
    """Treated as a secret: sealed at rest, masked everywhere."""


class OutputDeclaration(Model):
    """The contract of one output, checked when its stage ends and usable by the plan before that."""

    type: str = "any"
    """Its type, as for inputs."""
    sensitive: bool = False
    """Sealed at rest, masked everywhere."""
    optional: bool = False
    """The stage may end without it."""
    example: Value = None
    """Used in a rehearsal's or plan's illustration only, never in an apply."""
    description: str = ""
    """What it is for."""


class HostDeclaration(Model):
    """A logical machine that stages run commands on, over SSH."""

    address: str
    """IP address or name; often an expression over another stage's output."""
    port: int | str = 22
    """SSH port."""
    user: str = "root"
    """Login name."""
    key: Value = None
    """The private key itself, as an expression over a secret; without it `key_file` or the SSH agent is used."""
    key_file: str | None = None
    """Path of a private key file, relative to the composition."""
    host_key: str | None = None
    """The host's public key (`ssh-ed25519 AAAA…`); without it the host must stand in `known_hosts`."""
    known_hosts: str | None = None
    """Path of a known_hosts file, relative to the composition; default: the user's own."""
    jump: str | None = None
    """Another host of this composition to go through."""
    roles: tuple[str, ...] = ()
    """Free labels, for groups in configuration tools."""
    vars: dict[str, Value] = Field(default_factory=dict)
    """Facts for configuration tools, as host variables."""


class RetryPolicy(Model):
    """When a failed stage is tried again."""

    attempts: int = Field(default=3, ge=1, le=100)
    """How often in all."""
    backoff: Seconds = 2.0
    """Pause before the second attempt; doubles each time, one minute at most."""
    on: Literal["transient", "any"] = "transient"
    """`transient`: only failures that a later attempt can mend (a host that does not answer); `any`: every failure."""


class CancelPolicy(Model):
    """How patiently running commands are stopped, on cancellation and after a timeout."""

    first: Seconds
    """How long they have to save and to end after the first interrupt."""
    second: Seconds = 5.0
    """How long after the second one; then they are killed with all that they started."""


class StageDeclaration(Model):
    """One provider action of the composition."""

    uses: str
    """The provider: terraform, ansible, command, http, check, wireguard, …; `connection` takes that of the template
    named in `with`."""
    with_: dict[str, Value] = Field(default_factory=dict, alias="with")
    """The provider's settings; see each provider's reference."""
    needs: tuple[str, ...] = ()
    """Stages that must end well first, beyond those whose outputs are read."""
    if_: Value = Field(default=True, alias="if")
    """The stage is left out unless this is true."""
    best_effort: bool = False
    """Its failure makes the result degraded, not failed."""
    retry: RetryPolicy = RetryPolicy()
    """When a failed attempt is repeated."""
    timeout: Seconds | None = None
    """How long one attempt may take."""
    cancel: CancelPolicy | None = None
    """How patiently its commands are stopped; default: as its provider knows best (Terraform gets minutes)."""
    outputs: dict[OutputName, OutputDeclaration] = Field(default_factory=dict)
    """The contract of its outputs."""
    prevent_destroy: bool = False
    """Refuse to destroy or replace it."""
    on_stop: Literal["stop", "keep"] = "stop"
    """What `skyspan stop` does to it, where its provider can stop at all."""
    site: str = "local"
    """Where its commands start; only `local` exists yet."""


class ConnectionTemplate(Model):
    """Settings of a link that many stages start from: what `skyspan connections add` takes, and what an entry of
    `connections:` may be."""

    uses: str
    """The provider whose settings these are: wireguard, …"""
    with_: dict[str, Value] = Field(default_factory=dict, alias="with")
    """Its settings, all or some of them; expressions mean the composition that uses the template."""
    description: str = ""
    """What it is for."""


class Composition(Model):
    """The whole file."""

    skyspan: Literal[1]
    """Version of the format."""
    name: Name
    """Default name of the deployment."""
    description: str = ""
    """What it is for."""
    inputs: dict[Name, InputDeclaration] = Field(default_factory=dict)
    """What may be given on the command line, in a file or by SKYSPAN_INPUT_*."""
    hosts: dict[Name, HostDeclaration] = Field(default_factory=dict)
    """Logical machines."""
    stages: dict[Name, StageDeclaration] = Field(min_length=1)
    """The provider actions, in any order: what they read decides."""
    connections: dict[Name, dict[str, Value]] = Field(default_factory=dict)
    """Reusable link settings: the settings themselves, or `{uses, with, description}` as in a workspace's template."""
    rehearsal: Value = None
    """Stand-ins for a rehearsal; may also be in rehearsal.yaml beside this file."""


Raw: TypeAlias = dict[str, Any]
"""The file as plain data, before it is validated."""
