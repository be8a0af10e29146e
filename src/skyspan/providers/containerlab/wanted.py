"""The lab that the settings ask for: the topology read, checked and overridden, with the files that belong to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import yaml

from skyspan.model.diagnostic import Diagnostic, Position
from skyspan.model.error import SpecError
from skyspan.model.secret import Secret
from skyspan.model.value import digest, revealed, secrets_in
from skyspan.providers.containerlab.checks import check, problems
from skyspan.providers.containerlab.gitwords import named_by_git
from skyspan.providers.containerlab.memory import Rendered
from skyspan.providers.containerlab.reading import Read, read
from skyspan.providers.containerlab.render import overridden
from skyspan.providers.containerlab.shipping import Shipment, gather
from skyspan.providers.containerlab.spec import ContainerlabSpec
from skyspan.providers.containerlab.template import Template, is_template, template_of
from skyspan.providers.containerlab.topology import Topology, topology_of

_INLINE = "topology"

_OPEN = frozenset({"no-image", "no-kind", "no-name", "no-nodes"})
"""Findings that other settings of the stage may mend."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The lab as it is to be. `source` is what is written for the host; `file` is its path in the tree there.
    `rendered` is what a Go template was rendered to."""

    topology: Topology
    source: Read
    shipment: Shipment
    file: str
    rendered: Rendered | None = None

    def content(self, text: str) -> str:
        """What tells one shipment, the topology `text` with it, from another."""
        return digest([self.file, text, self.shipment.content])


Renderer: TypeAlias = Callable[[Template], Awaitable[str]]
"""Has a Go template rendered: what it makes of it, or raises SpecError."""


async def wanted_lab(spec: ContainerlabSpec, folder: Path, render: Renderer) -> Wanted:
    """Read everything that the settings name below the composition's folder; raises SpecError with all findings."""
    source = await asyncio.to_thread(_source, spec, folder)
    if not isinstance(source, Template):
        return await asyncio.to_thread(_wanted, spec, folder, source, None)
    made = Rendered(source.mark, await render(source))
    return await asyncio.to_thread(_wanted, spec, folder, read(made.text, f"{spec.topology} (rendered)"), made)


def findings(topology: Any, env: Mapping[str, Any], folder: Path) -> list[Diagnostic]:
    """What is wrong with a topology file whatever the settings put in later: images, defaults, values of variables."""
    if not isinstance(topology, str):
        return []
    path = folder / topology
    if not path.is_file():
        return [Diagnostic("missing-file", f"there is no file {topology!r}", Position(topology))]
    try:
        text = path.read_text()
        # What a template comes to is known on the lab's host only.
        found = [] if is_template(text) else list(problems(read(text, topology, _revealed(env))))
    except SpecError as error:
        return [Diagnostic("topology", error.summary, Position(topology), hint=error.hint)]
    except (OSError, UnicodeDecodeError) as error:
        return [Diagnostic("topology", str(error), Position(topology))]
    return [item for item in found if item.code not in _OPEN and "$" not in item.summary]


def parsed(text: str) -> Topology:
    """The topology that was rendered earlier."""
    return topology_of(read(text, _INLINE, {}).values)


def secrets_of(spec: ContainerlabSpec) -> frozenset[Secret]:
    """Every secret among the settings."""
    return secrets_in([spec.topology, spec.env, spec.vars, spec.defaults, spec.exec])


def plain_exec(spec: ContainerlabSpec) -> Mapping[str, tuple[str, ...]]:
    """The settings' commands by node, in clear."""
    return {node: tuple(str(revealed(line)) for line in lines) for node, lines in spec.exec.items()}


def missing_image(topology: Topology, missing: tuple[str, ...], host: str) -> SpecError:
    """The error for images that the host's Docker does not have."""
    users = {image: [node.name for node in topology.nodes if node.image == image] for image in missing}
    lines = [f"{image}: {', '.join(names)}" for image, names in users.items()]
    return SpecError(
        f"{host} does not have the image {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
        detail="\n".join(lines),
        hint=f"bring it there (`docker pull {missing[0]}`, or `docker save` here and `docker load` there), set "
        "`pull: true`, or name another one by `images`",
    )


def _source(spec: ContainerlabSpec, folder: Path) -> Read | Template:
    env = _revealed(spec.env)
    if not isinstance(spec.topology, str):
        source = read(yaml.safe_dump(revealed(dict(spec.topology)), sort_keys=False), _INLINE, env)
        # Its lines are nobody's file: findings name what is wrong, not where.
        return Read(source.file, "", source.root, source.values, {}, source.doubled)
    path = folder / spec.topology
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        hint = "the path is relative to the composition's folder"
        raise SpecError(f"no topology {spec.topology!r}: {error}", hint=hint) from error
    if is_template(text):
        variables = folder / spec.vars if isinstance(spec.vars, str) else spec.vars
        return template_of(path, text, variables if isinstance(variables, Path) else revealed(variables), env)
    return read(text, spec.topology, env)


def _wanted(spec: ContainerlabSpec, folder: Path, source: Read, rendered: Rendered | None) -> Wanted:
    path = folder / (spec.topology if isinstance(spec.topology, str) else "topology.clab.yml")
    check(source)
    name = spec.name or named_by_git(source.values.get("name"), path.parent)
    source = overridden(source, name, spec.images, revealed(dict(spec.defaults)))
    check(source)
    topology = topology_of(source.values)
    _check_names(spec, topology)
    shipment = gather(topology, path.parent, spec.files, source.file)
    return Wanted(topology, source, shipment, str(PurePosixPath(shipment.folder) / path.name), rendered)


def _revealed(env: Mapping[str, Any]) -> dict[str, str]:
    return {name: value.reveal() if isinstance(value, Secret) else str(value) for name, value in env.items()}


def _check_names(spec: ContainerlabSpec, topology: Topology) -> None:
    """Refuse settings about nodes that the topology does not have."""
    known = {node.name for node in topology.nodes}
    named = [("exec", node) for node in spec.exec] + [("wait", wait.node) for wait in spec.wait]
    unknown = [f"{setting} names the node {node!r}" for setting, node in named if node not in known]
    if unknown:
        hint = f"nodes: {', '.join(sorted(known))}"
        raise SpecError(f"{unknown[0]}, which the topology does not have", detail="\n".join(unknown), hint=hint)
