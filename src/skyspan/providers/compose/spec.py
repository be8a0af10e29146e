"""The settings of a `compose` stage."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from skyspan.model.secret import Secret
from skyspan.model.value import Value
from skyspan.providers.dockerengine.spec import EngineSpec, SecretText

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_RESERVED = re.compile(r"(DOCKER|COMPOSE|BUILDX|LD)_.*|PATH|HOME|IFS|ENV|TMPDIR|SKYSPAN_.*")
"""Variables that steer the shell, the docker command or Compose itself."""


class ComposeSpec(EngineSpec):
    """A Compose project: services from Compose files, as they are."""

    files: tuple[str, ...] = ()
    """Compose files, relative to the composition's folder, the later ones on top of the earlier; default:
    `compose.yaml` or one of the other usual names. What they name beside themselves goes with them to a host."""
    inline: dict[str, Value] | None = None
    """Instead of `files`: the Compose file itself. Paths in it are relative to the composition's folder."""
    project: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """Name of the project on the daemon; default: DEPLOYMENT-STAGE."""
    variables: dict[str, SecretText] = Field(default_factory=dict)
    """Values for `${NAME}` in the files, handed over by the environment of the command. A secret that a file puts
    into a service's `environment` shows in `docker inspect` to whoever may ask Docker there; Compose's `secrets` and
    `configs` with `environment: NAME` keep it better."""
    profiles: tuple[str, ...] = ()
    """Profiles whose services are wanted too."""
    services: tuple[str, ...] = ()
    """Only these services, with those they depend on; default: all."""
    scale: dict[str, Annotated[int, Field(ge=0, le=1000)]] = Field(default_factory=dict)
    """How many containers a service gets, instead of what the files say."""
    oneshot: tuple[str, ...] = ()
    """Services that do their work and end with status 0. Those that others wait for with
    `service_completed_successfully` are known by that."""
    pull: Literal["never", "missing", "always"] = "missing"
    """Whether images are fetched: `missing` fetches those that are not there, `never` makes that an error."""
    ship: tuple[str, ...] = ()
    """More files and folders of the composition's folder that a host needs: those whose names hold variables, say."""
    remove_volumes: bool = False
    """Destroying removes the project's volumes, and what its services wrote beside the shipped files; otherwise they
    stay, and are found again."""

    @field_validator("variables")
    @classmethod
    def _names(cls, variables: dict[str, str | Secret]) -> dict[str, str | Secret]:
        for name in variables:
            if _VARIABLE.fullmatch(name) is None or _RESERVED.fullmatch(name):
                msg = f"{name!r} cannot be a variable of Compose files here"
                raise ValueError(msg)
        return variables

    @model_validator(mode="after")
    def _one_origin(self) -> ComposeSpec:
        if self.files and self.inline is not None:
            msg = "a project is made of `files` or of `inline`"
            raise ValueError(msg)
        for path in (*self.files, *self.ship):
            if path.startswith("/") or ".." in path.split("/"):
                msg = f"{path!r} is not in the composition's folder"
                raise ValueError(msg)
        return self
