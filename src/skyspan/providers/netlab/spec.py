"""The settings of a netlab stage, and what can be said against them without looking at a host."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from skyspan.contracts.provider import Spec
from skyspan.model.value import Value
from skyspan.providers.lab.waiting import LabWait

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,15}")
_CAPABILITY = re.compile(r"[A-Z][A-Z_]*")
_SMALLEST = 16


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not text:
        msg = f"{text!r} is no path below the composition's folder"
        raise ValueError(msg)
    return text


def _lab_name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        msg = f"{text!r} is no lab name: a letter, then letters, digits, _ and -, 16 at most (netlab)"
        raise ValueError(msg)
    return text


def _network(text: str) -> str:
    network = ip_network(text)
    if network.num_addresses < _SMALLEST:
        msg = f"{text} is too small for a lab's management network"
        raise ValueError(msg)
    return text


def _capability(text: str) -> str:
    if _CAPABILITY.fullmatch(text) is None:
        msg = f"{text!r} is no capability as containerlab writes it, such as NET_ADMIN"
        raise ValueError(msg)
    return text


Below: TypeAlias = Annotated[str, AfterValidator(_inside)]


class NetlabSpec(Spec):
    """A network lab out of a netlab topology, on this machine or on a host."""

    topology: Below | dict[str, Value]
    """The topology: a file relative to the composition; or a folder with a `topology.yml`, all of which is sent to the
    lab's host; or the topology itself, inline. What it names goes along: what it includes, defaults, plugins, templates
    of configurations, binds; and what netlab looks for beside it, such as `topology-defaults.yml` and `templates`."""
    files: tuple[Below, ...] = ()
    """More files and folders that the topology needs, such as what its plugins read, relative to the composition. All
    files lie to each other on the lab's host as they do here."""
    host: str | None = None
    """The host that runs the lab, with netlab, containerlab and Docker on it; default: this machine."""
    provider: Literal["clab", "external"] | None = None
    """`clab`: containers by containerlab; `external`: devices that exist, reached by their management addresses.
    Default: what the topology says, `clab` where it says nothing."""
    images: dict[str, str] = Field(default_factory=dict)
    """Container images instead of the topology's and netlab's own: by device (`frr`), by node, or by the image that
    would be used otherwise."""
    pull: bool = False
    """Whether images that the host lacks are fetched; without it they are named, and nothing is touched."""
    device: str | None = None
    """The device of nodes that name none, instead of the topology's `defaults.device`."""
    settings: dict[str, str | int | bool] = Field(default_factory=dict)
    """More topology settings that win over the file's, as `netlab create --set` takes them: a dotted name to a
    value (`bgp.as`, `defaults.ospf.area`)."""
    restricted: bool = False
    """The lab's host cannot run privileged containers, or its kernel loads no modules and has no dummy interfaces:
    nodes get the `capabilities` only and their kernel settings writable, no module is asked for, and a stub link is
    one end of a veth."""
    capabilities: tuple[Annotated[str, AfterValidator(_capability)], ...] = (
        "NET_ADMIN",
        "NET_RAW",
        "NET_BIND_SERVICE",
        "SYS_ADMIN",
    )
    """What nodes may do beyond Docker's default, with `restricted`."""
    name: Annotated[str, AfterValidator(_lab_name)] | None = None
    """The lab's name, part of its containers' and bridges' names; default: `ml-` and its number. No other lab of the
    host may begin with the same 6 characters."""
    number: int | None = Field(default=None, ge=1, le=200)
    """netlab's `multilab.id`, which keeps labs on one host apart; default: one that is free there."""
    management: Annotated[str, AfterValidator(_network)] | None = None
    """The management network (IPv4) of a lab of containers; default: one that overlaps nothing that the host has."""
    configure: bool = True
    """Whether devices are configured; false starts them only."""
    validation: Literal["required", "report", "skip"] = "required"
    """What the topology's `validate` tests are for: a failing one fails the stage; or is only told in the outputs; or
    they are not run."""
    wait: tuple[LabWait, ...] = ()
    """What must be so before the lab counts as ready, besides the topology's own tests."""
    new_version: Literal["refuse", "recreate"] = "refuse"
    """What happens when the host's netlab is of another version than the one that made the lab, as snapshots of one
    cannot be trusted to another: nothing until it is settled, or the lab is made anew."""
    program: str = "netlab"
    """The netlab command on the host: a name on its PATH, or an absolute path."""

    @model_validator(mode="after")
    def _fits(self) -> NetlabSpec:
        problems = []
        if isinstance(self.topology, dict) and not self.topology.get("nodes"):
            problems.append("the inline topology has no `nodes`")
        if self.provider == "external":
            for setting in ("images", "management", "restricted"):
                if getattr(self, setting):
                    problems.append(f"`{setting}` is for labs of containers, not for `provider: external`")
        if any("=" in text for pair in self.settings.items() for text in map(str, pair)):
            problems.append("netlab takes no `=` in the names and values of `settings`")
        if problems:
            raise ValueError("; ".join(problems))
        return self
