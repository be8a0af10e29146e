"""The graph of stages as pictures made of text: for a terminal, Mermaid and Graphviz's DOT."""

from __future__ import annotations

from collections.abc import Iterator

from skyspan.planning.draft import Checked
from skyspan.planning.graph import levels, reach


def as_text(checked: Checked) -> str:
    """Levels of stages that can go at the same time, each line naming what the stage waits for."""
    stages, needs = checked.composition.stages, direct_needs(checked)
    name_width = max(len(name) for name in stages)
    uses_width = max(len(stage.uses) for stage in stages.values())
    count = f"{len(stages)} stage{'s' if len(stages) != 1 else ''}"
    lines = [f"{checked.composition.name}: {count}", ""]
    for number, level in enumerate(levels(checked.needs), 1):
        for place, name in enumerate(level):
            head = f"{number:>3}" if not place else "   "
            arrow = f"<- {', '.join(needs[name])}" if needs[name] else ""
            notes = ", ".join(_notes(checked, name))
            columns = [head, name.ljust(name_width), stages[name].uses.ljust(uses_width), arrow]
            lines.append("  ".join([*columns, *([f"({notes})"] if notes else [])]).rstrip())
    return "\n".join(lines) + "\n"


def as_mermaid(checked: Checked) -> str:
    """A Mermaid flowchart, for Markdown pages."""
    stages, needs = checked.composition.stages, direct_needs(checked)
    number = {name: f"s{place}" for place, name in enumerate(stages)}
    lines = ["flowchart LR"]
    for name, stage in stages.items():
        opening, closing = ("([", "])") if stage.best_effort else ("[", "]")
        lines.append(
            f'    {number[name]}{opening}"{_mermaid(name)}<br/><small>{_mermaid(stage.uses)}</small>"{closing}'
        )
    for name in stages:
        lines += [f"    {number[needed]} --> {number[name]}" for needed in needs[name]]
    return "\n".join(lines) + "\n"


def as_dot(checked: Checked) -> str:
    """A graph for Graphviz (`dot -Tsvg`)."""
    stages, needs = checked.composition.stages, direct_needs(checked)
    lines = [f"digraph {_quoted(checked.composition.name)} {{", "    rankdir=LR;", "    node [shape=box];"]
    for name, stage in stages.items():
        style = ", style=dashed" if stage.best_effort else ""
        label = _quoted(name + "\\n" + stage.uses)
        lines.append(f"    {_quoted(name)} [label={label}{style}];")
    for name in stages:
        lines += [f"    {_quoted(needed)} -> {_quoted(name)};" for needed in needs[name]]
    return "\n".join([*lines, "}"]) + "\n"


def direct_needs(checked: Checked) -> dict[str, tuple[str, ...]]:
    """What each stage needs, in the order of the file, without what follows from the rest of its needs."""
    rank = {name: place for place, name in enumerate(checked.composition.stages)}
    return {name: tuple(sorted(_essential(checked, name), key=rank.__getitem__)) for name in rank}


def _essential(checked: Checked, name: str) -> frozenset[str]:
    needs = checked.needs[name]
    if len(needs) < 2:
        return needs
    further: set[str] = {name for needed in needs for name in checked.needs[needed]}
    implied: frozenset[str] = reach(checked.needs, further)
    return needs - implied


def _notes(checked: Checked, name: str) -> Iterator[str]:
    stage = checked.composition.stages[name]
    if stage.best_effort:
        yield "best effort"
    if stage.if_ is not True:
        yield "left out" if stage.if_ is False else "conditional"
    if stage.prevent_destroy:
        yield "protected"


def _quoted(text: str) -> str:
    escaped = text.replace('"', '\\"')
    return f'"{escaped}"'


def _mermaid(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
