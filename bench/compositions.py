"""The compositions that are measured, as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence


def composition(stages: Iterable[str]) -> str:
    """A composition of these stages."""
    return "skyspan: 1\nname: bench\nstages:\n" + "".join(stages)


def command(name: str, argv: Sequence[str], needs: Sequence[str] = (), check: Sequence[str] = ()) -> str:
    """A stage that runs one process."""
    settings = {"run": list(argv)} | ({"check": list(check)} if check else {})
    lines = f"  {name}:\n    uses: command\n"
    if needs:
        lines += f"    needs: [{', '.join(needs)}]\n"
    return lines + f"    with: {json.dumps(settings)}\n"


def name(number: int) -> str:
    return f"s{number:04}"


def chain(size: int, argv: Sequence[str] = ("true",), check: Sequence[str] = ()) -> str:
    """One stage after the other."""
    return composition(command(name(n), argv, [name(n - 1)] if n else [], check) for n in range(size))


def fan(size: int) -> str:
    """One stage, `size` that need it, one that needs those."""
    middle = [name(n) for n in range(1, size + 1)]
    stages = [command(name(0), ["true"]), *(command(item, ["true"], [name(0)]) for item in middle)]
    return composition([*stages, command(name(size + 1), ["true"], middle)])


def independent(size: int, argv: Sequence[str]) -> str:
    """Stages that need nothing of each other."""
    return composition(command(name(n), argv) for n in range(size))


def referring(size: int) -> str:
    """Stages in layers of ten, each reading two outputs of the layer before: what planning has to untangle."""
    stages = []
    for n in range(size):
        layer = n // 10
        above = [name((layer - 1) * 10 + (n + step) % 10) for step in (0, 3)] if layer else []
        text = f"  {name(n)}:\n    uses: command\n    with:\n      run: ['true']\n"
        if above:
            text += "      env:\n"
            text += "".join(f'        V{i}: "${{{{ stages.{item}.outputs.v }}}}"\n' for i, item in enumerate(above))
        stages.append(text + "    outputs: {v: {type: string}}\n")
    return composition(stages)
