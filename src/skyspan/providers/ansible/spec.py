"""The settings of an `ansible` stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skyspan.contracts.provider import Spec
from skyspan.model.secret import Secret
from skyspan.model.value import Value


class AnsibleSpec(Spec):
    """A playbook over logical hosts; its `set_stats` become outputs."""

    playbook: str
    """The playbook, relative to the composition."""
    hosts: tuple[str, ...] = Field(min_length=1)
    """Logical hosts of the composition; their `roles` become inventory groups."""
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """More inventory groups: name to hosts."""
    extra_vars: dict[str, Value] = Field(default_factory=dict)
    """Variables for the whole play; passed by file, so they may hold secrets."""
    requirements: str | None = None
    """A requirements file for ansible-galaxy, relative to the composition; installed for this stage only."""
    tags: tuple[str, ...] = ()
    """Only tasks with these tags."""
    skip_tags: tuple[str, ...] = ()
    """No tasks with these tags."""
    forks: int = Field(default=10, ge=1, le=200)
    """How many hosts at the same time."""
    become: bool = False
    """Become root on the hosts."""
    verify: Literal["check", "marker"] = "check"
    """How the real thing is observed: `check` runs the playbook in check mode and calls pending changes drift; `marker`
    trusts that it was applied, for playbooks that cannot run in check mode."""
    destroy: str | None = None
    """A playbook that undoes this one, relative to the composition."""
    env: dict[str, str | Secret] = Field(default_factory=dict)
    """More environment for ansible-playbook."""
