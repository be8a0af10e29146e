"""The settings of a containerlab stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from skyspan.contracts.provider import Spec
from skyspan.model.composition import Seconds
from skyspan.model.secret import Secret
from skyspan.providers.lab.waiting import LabWait


class ContainerlabSpec(Spec):
    """A network lab of containers."""

    topology: str | Mapping[str, Any]
    """A containerlab topology: a file, relative to the composition's folder, or the topology itself."""
    host: str | None = None
    """The host that the lab runs on; default: this machine. It needs Docker, containerlab and root."""
    name: str | None = None
    """Another name for the lab than the topology gives."""
    images: Mapping[str, str] = {}
    """Other images for those that the topology names: `{"frrouting/frr:v8": "my/frr:8"}`."""
    defaults: Mapping[str, Any] = {}
    """Settings put into the topology's `defaults`, such as `privileged: false` with `cap-add`."""
    env: Mapping[str, str | Secret] = {}
    """Values for the variables of the topology (`${IMAGE:=frr:8}`)."""
    vars: str | Mapping[str, Any] | None = None
    """For a topology that is a Go template: its variables, or a file with them, relative to the composition's folder;
    default: the files `NAME_vars.yml` (or `.yaml`, `.json`) beside the template, as containerlab has it."""
    files: tuple[str, ...] = ()
    """More files and folders that the lab needs on the host, relative to the topology's folder. What the topology
    itself names relatively (binds, startup-config, license, env-files) is sent without being listed."""
    pull: bool = False
    """Have missing images pulled by the host's Docker; otherwise a missing image is an error before anything runs."""
    pool: tuple[str, ...] = Field(default=("10.253.0.0/16", "100.125.0.0/16"), min_length=1)
    """The networks out of which the lab's management network is chosen when the topology gives none."""
    exec: Mapping[str, tuple[str, ...]] = {}
    """By node, commands that are run in it whenever it was made or started anew, after the topology's own `exec`. As
    there, they are split into words and not given to a shell."""
    wait: tuple[LabWait, ...] = ()
    """What must be so before the lab counts as ready."""
    stop_within: Seconds = 10.0
    """How long a node may take to end by itself when the lab is stopped."""

    @model_validator(mode="after")
    def _pools_are_networks(self) -> ContainerlabSpec:
        from ipaddress import ip_network

        for pool in self.pool:
            ip_network(pool)
        return self
