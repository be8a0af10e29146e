"""Names and identifiers: which deployment, stage, run and attempt is meant."""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,62}$"
"""Names of deployments, stages, hosts, inputs and secrets: a DNS label, with `_` allowed."""

_NAME = re.compile(NAME_PATTERN)


def is_name(text: str) -> bool:
    """Whether `text` may name a deployment, a stage, a host or a workspace."""
    return _NAME.match(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class DeploymentAddress:
    """A deployment in its workspace."""

    workspace: str
    name: str

    def __str__(self) -> str:
        return f"{self.workspace}/{self.name}"

    def stage(self, name: str) -> StageAddress:
        """The address of one of its stages."""
        return StageAddress(self, name)


@dataclass(frozen=True, slots=True, order=True)
class StageAddress:
    """A stage of a deployment."""

    deployment: DeploymentAddress
    name: str

    def __str__(self) -> str:
        return f"{self.deployment}/{self.name}"
