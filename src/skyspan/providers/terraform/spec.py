"""The settings of a `terraform` stage."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from skyspan.contracts.provider import Spec
from skyspan.model.secret import Secret
from skyspan.model.value import Value, secrets_in
from skyspan.providers.terraform.version import constraint_problem


class TerraformSpec(Spec):
    """A folder of OpenTofu or Terraform configuration. Its outputs are the stage's outputs."""

    source: Annotated[str, Field(min_length=1)]
    """The folder with the root module, relative to the composition. Local modules and files that it names by `../` come
    along."""
    variables: dict[str, Value] = Field(default_factory=dict)
    """Input variables, typed; passed by a private file, never on a command line."""
    tool: Literal["auto", "tofu", "terraform"] = "auto"
    """Which tool; `auto` takes OpenTofu, or Terraform where that is missing."""
    version: str = ""
    """Which versions of the tool will do, such as `>= 1.8, < 2`."""
    parallelism: Annotated[int, Field(ge=1, le=256)] | None = None
    """How many resources are worked on at once; the tool's own default is 10."""
    backend: Literal["auto", "kept"] = "auto"
    """Where the state lives. `auto`: sealed by Skyspan, unless the configuration declares a backend or cloud block,
    which is then used as it is. `kept`: sealed by Skyspan in any case."""
    env: dict[str, str | Secret] = Field(default_factory=dict)
    """More environment for the tool and its providers: credentials, regions, proxies."""
    override: dict[str, Any] = Field(default_factory=dict)
    """JSON configuration laid over the folder as `skyspan_override.tf.json`; the folder itself stays untouched."""

    @property
    def secrets(self) -> frozenset[Secret]:
        """Every secret in the settings."""
        return secrets_in([self.variables, self.env, self.override])

    @field_validator("source")
    @classmethod
    def _source_is_inside(cls, source: str) -> str:
        path = PurePosixPath(source)
        if path.is_absolute():
            msg = "must be relative to the composition's folder"
            raise ValueError(msg)
        if ".." in path.parts:
            msg = "must lie inside the composition's folder: move skyspan.yaml up, so that it stands above both"
            raise ValueError(msg)
        return path.as_posix()

    @field_validator("version")
    @classmethod
    def _version_is_a_constraint(cls, version: str) -> str:
        problem = constraint_problem(version)
        if problem:
            raise ValueError(problem)
        return version
