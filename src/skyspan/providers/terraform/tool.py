"""Finds the tool: OpenTofu first, then Terraform; its version is asked for once per binary and remembered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from skyspan.contracts.context import ReadContext, Tools
from skyspan.model.error import ToolFailedError, ToolMissingError
from skyspan.providers.terraform.commands import quiet_environment, version_of
from skyspan.providers.terraform.version import parse_version, satisfies
from skyspan.providers.terraform.worktree import write_private

_NAMES = MappingProxyType({"auto": ("tofu", "terraform"), "tofu": ("tofu",), "terraform": ("terraform",)})

# The oldest releases whose `init` speaks JSON too; before that its failures cannot be read reliably.
_OLDEST = MappingProxyType({"tofu": ">= 1.8", "terraform": ">= 1.9"})

_GET = MappingProxyType(
    {
        "tofu": "get OpenTofu (https://opentofu.org/docs/intro/install/) and put `tofu` on PATH",
        "terraform": "get Terraform (https://developer.hashicorp.com/terraform/install) and put `terraform` on PATH",
    }
)

_MEMORY = "tool.json"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool of a known version. `name` is tofu or terraform."""

    name: str
    path: Path
    version: str


def locate(choice: str, tools: Tools) -> Path:
    """Where the chosen tool is; raises ToolMissingError that says how to get it."""
    names = _NAMES[choice]
    path = tools.find(*names)
    if path is None:
        msg = f"{' or '.join(names)} not found on this machine"
        raise ToolMissingError(msg, hint=_GET[names[0]])
    return path


async def identify(choice: str, constraint: str, ctx: ReadContext) -> Tool:
    """The chosen tool, checked against what we can drive and against `constraint`. Raises ToolMissingError."""
    path = locate(choice, ctx.tools)
    name = "terraform" if path.name.startswith("terraform") else "tofu"
    tool = Tool(name, path, await _version(path, ctx))
    number = parse_version(tool.version)
    for wanted, whose in ((_OLDEST[name], "Skyspan"), (constraint, "the stage")):
        if not satisfies(number, wanted):
            msg = f"{name} {tool.version} ({path}) does not meet {wanted!r}, which {whose} asks for"
            other = " or set `tool:`" if choice == "auto" else ""
            raise ToolMissingError(msg, hint=f"{_GET[name]}, in a version {wanted}{other}")
    return tool


async def _version(path: Path, ctx: ReadContext) -> str:
    about = path.stat()
    known = {"path": str(path.resolve()), "size": about.st_size, "changed": about.st_mtime_ns}
    memory = ctx.work / _MEMORY
    try:
        remembered = json.loads(memory.read_bytes())
        if isinstance(remembered, dict) and known.items() <= remembered.items():
            return str(remembered["version"])
    except (OSError, ValueError, KeyError):
        pass
    said = await ctx.places.reach(None).query(version_of(path, quiet_environment(empty_config(ctx.work))))
    try:
        version = str(json.loads(said.stdout)["terraform_version"])
        parse_version(version)
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{path} does not tell its version (exit {said.exit_code})"
        raise ToolFailedError(msg, detail=said.last_words(), hint="is it OpenTofu or Terraform at all?") from error
    write_private(memory, json.dumps(known | {"version": version}).encode())
    return version


def empty_config(work: Path) -> Path:
    """A CLI configuration that configures nothing, so that neither tool reads the caller's own."""
    path = work / "cli.tfrc"
    if not path.exists():
        write_private(path, b"")
    return path
