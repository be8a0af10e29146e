"""What a netlab stage shows of its lab: health, drift and outputs; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from skyspan.contracts.context import ReadContext
from skyspan.model.change import Action, Observation, ResourceChange
from skyspan.model.value import OutputValue, digest, secrets_in
from skyspan.providers.lab.facts import Management, outputs
from skyspan.providers.lab.topology import LabNode
from skyspan.providers.masking import holds_secret
from skyspan.providers.netlab import clabfile
from skyspan.providers.netlab.compare import by_node, damage
from skyspan.providers.netlab.facts import lab_of, routing_outputs
from skyspan.providers.netlab.hosts import Scene
from skyspan.providers.netlab.memory import Made, Memory
from skyspan.providers.netlab.spec import NetlabSpec

_RECORD = "netlab's record of the lab (netlab.snapshot.pickle)"


def observation(
    spec: NetlabSpec, memory: Memory, made: Made, scene: Scene, ctx: ReadContext, *, changed: bool = False
) -> Observation:
    """The lab as it was seen; it is there, or was stopped. `changed`: its description is another one since."""
    containers = by_node(scene.look, memory.place.name)
    management = None
    if memory.place.management:
        management = Management(memory.place.network, memory.place.bridge, memory.place.management)
    images = clabfile.images(made.clab) if made.clab else {}
    lab = lab_of(made.facts, management if made.clab else None, containers, images)
    host = ctx.hosts.get(memory.host) if memory.host is not None else None
    values = {**outputs(lab, host), **routing_outputs(made.facts), **_own(memory)}
    found = _drift(memory, scene)
    edited = (ResourceChange("the topology's files", Action.UPDATE, "changed since"),) if changed else ()
    reason = _reason(memory, found, spec)
    states = [[node.name, node.state, node.started_at] for node in lab.nodes]
    return Observation(
        True,
        healthy=not reason,
        drifted=bool(edited or found) and not memory.stopped,
        fingerprint=digest([states, scene.survey.snapshot, scene.survey.version, [item.record() for item in found]]),
        reason=reason,
        outputs=_shown(spec, values),
        drift=() if memory.stopped else (*found, *edited),
    )


def _own(memory: Memory) -> dict[str, Any]:
    return {
        "validation": dict(memory.report) or {"result": "none", "tests": []},
        "netlab": {
            "version": memory.version,
            "number": memory.place.number,
            "folder": memory.place.lab,
            "provider": memory.made.facts.provider if memory.made is not None else "",
            "snapshot": memory.snapshot,
        },
    }


def _drift(memory: Memory, scene: Scene) -> tuple[ResourceChange, ...]:
    found = list(damage(memory, scene.survey, scene.look).drift)
    if scene.survey.snapshot != memory.snapshot:
        gone = "was changed by somebody" if scene.survey.snapshot else "is gone"
        found.append(ResourceChange(_RECORD, Action.REPLACE, gone))
    elif not scene.survey.locked:
        found.append(ResourceChange("the lab", Action.REPLACE, "it was taken down by somebody"))
    return tuple(found)


def _reason(memory: Memory, found: tuple[ResourceChange, ...], spec: NetlabSpec) -> str:
    if memory.stopped:
        return "stopped"
    if found:
        return "; ".join(f"{item.address}: {item.note}" for item in found)
    if spec.validation == "required" and memory.report.get("result") == "failed":
        return f"validation failed: {failing(memory.report)}"
    return ""


def failing(report: Mapping[str, Any]) -> str:
    """Which tests failed, on which nodes, in a line."""
    failed = [test for test in report.get("tests", ()) if test["result"] == "failed"]
    return "; ".join(test["name"] + (f" ({', '.join(test['nodes'])})" if test["nodes"] else "") for test in failed)


def lines(report: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    return [
        f"{test['name']}: {test['result']}" + "".join(f": {message}" for message in test["messages"])
        for test in report.get("tests", ())
    ]


def _shown(spec: NetlabSpec, values: Mapping[str, Any]) -> dict[str, OutputValue]:
    secrets = secrets_in(spec.topology)
    if not secrets:
        return {name: OutputValue(value) for name, value in values.items()}
    return {
        name: OutputValue(value, holds_secret(json.dumps(value, ensure_ascii=False), secrets))
        for name, value in values.items()
    }


def nodes_of(made: Made) -> dict[str, tuple[str, str]]:
    """Container and management address by node, for what is waited for."""
    lab = lab_of(made.facts, None, {}, {})
    return {node.name: _reachable(node) for node in lab.nodes}


def _reachable(node: LabNode) -> tuple[str, str]:
    return node.container, node.ipv4 or node.ipv6
