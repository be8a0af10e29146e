"""Pass: what expressions refer to is declared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from skyspan.model.address import is_name
from skyspan.model.diagnostic import Diagnostic
from skyspan.model.expression import Reference
from skyspan.planning.draft import Draft
from skyspan.planning.names import FQDN
from skyspan.planning.source import finding, nearest

ROOTS = ("hosts", "inputs", "secrets", "stages")
HOST_FIELDS = ("address", FQDN, "host_key", "jump", "name", "port", "roles", "user", "vars")
"""What `hosts.H.…` may read: everything but what is secret or a path on this machine."""


def check_references(draft: Draft) -> Draft:
    """Report every reference to an input, a stage, an output or a host that the composition does not declare."""
    return draft.found(_findings(draft))


def _findings(draft: Draft) -> Iterator[Diagnostic]:
    for text in draft.texts:
        for read in text.template.reads():
            problem = _problem(draft, read.reference)
            if problem is not None:
                code, summary, hint = problem
                yield finding(draft.source, code, summary, draft.source.within(text.loc, text.text, read.offset), hint)


def _problem(draft: Draft, reference: Reference) -> tuple[str, str, str] | None:
    """Code, summary and hint of what is wrong with the reference; None if nothing is."""
    match reference.root:
        case "inputs":
            return _declared(draft, reference, "inputs", "input", draft.composition.inputs)
        case "stages":
            return _output(draft, reference)
        case "hosts":
            return _host(draft, reference)
        case "secrets":
            if len(reference.path) != 1 or not is_name(str(reference.path[0])):
                return "unknown-secret", f"{reference} names no secret", "write it as secrets.NAME"
            return None
        case _:
            hint = nearest(reference.root, ROOTS, "expressions read")
            return "unknown-reference", f"nothing is called {reference.root!r}", hint


def _declared(
    draft: Draft, reference: Reference, section: str, what: str, known: Iterable[str]
) -> tuple[str, str, str] | None:
    if not reference.path or not isinstance(reference.path[0], str):
        return f"unknown-{what}", f"{reference} names no {what}", f"write it as {section}.NAME"
    name = reference.path[0]
    if name in known or draft.is_broken((section, name)):
        return None
    return f"unknown-{what}", f"there is no {what} {name!r}", nearest(name, known, section)


def _output(draft: Draft, reference: Reference) -> tuple[str, str, str] | None:
    stages = draft.composition.stages
    problem = _declared(draft, reference, "stages", "stage", stages)
    if problem is not None:
        return problem
    stage, path = str(reference.path[0]), reference.path[1:]
    if not path or path[0] != "outputs":
        return "unknown-reference", f"{reference} reads no output", f"write it as stages.{stage}.outputs.NAME"
    if len(path) < 2 or stage not in stages:
        return None
    declared, name = stages[stage].outputs, path[1]
    if not declared or name in declared or draft.is_broken(("stages", stage, "outputs", name)):
        return None
    hint = nearest(name, declared, f"outputs of {stage}")
    return "unknown-output", f"stage {stage} declares no output {str(name)!r}", hint


def _host(draft: Draft, reference: Reference) -> tuple[str, str, str] | None:
    hosts = draft.composition.hosts
    problem = _declared(draft, reference, "hosts", "host", hosts)
    if problem is not None:
        return problem
    name, path = str(reference.path[0]), reference.path[1:]
    if name not in hosts:
        return None
    if not path or path[0] not in HOST_FIELDS:
        hint = nearest(path[0] if path else "", HOST_FIELDS, "a host has")
        return "unknown-reference", f"{reference} reads no field of host {name}", hint
    if path[0] == FQDN and name not in draft.names and draft.spec_of is not None:
        hint = f"write {name} into `hosts` of a stage that joins hosts to a network, such as `uses: tailscale`"
        return "unknown-reference", f"no stage gives host {name} a name in a private network", hint
    if path[0] == "vars" and len(path) > 1 and path[1] not in hosts[name].vars:
        hint = nearest(path[1], hosts[name].vars, f"vars of {name}")
        return "unknown-reference", f"host {name} has no var {str(path[1])!r}", hint
    return None
