"""Real tools: independent OpenTofu applies beside the script that a person would write."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.compositions import composition
from bench.processes import Sample, run
from bench.report import SELF, Measure, Row
from bench.rounds import alternate, cpu, wall
from bench.world import World

STACKS = ("network", "cluster", "database", "queue")


def real_tools(world: World) -> list[Measure]:
    """Four root modules of the built-in `terraform_data`: as they are, and with a resource that takes a second."""
    return [_stacks(world, waiting=0), _stacks(world, waiting=1)]


def _stacks(world: World, waiting: int) -> Measure:
    what = f"with a resource that takes {waiting} s" if waiting else "of the built-in terraform_data"
    title = f"{len(STACKS)} independent tofu applies {what}"
    tool = shutil.which("tofu", path=world.env["PATH"]) or shutil.which("terraform", path=world.env["PATH"])
    if tool is None:
        return Measure(title, "s", (Row(SELF, None, note="neither tofu nor terraform is here: make tools"),))
    subjects: dict[str, Callable[[], Sample]] = {
        SELF: partial(_own, world, waiting),
        "script, one after the other": partial(_script, world, tool, waiting, together=False),
        "script, all at once": partial(_script, world, tool, waiting, together=True),
    }
    found = alternate(subjects, world.rounds(3, quick=1))
    rows = tuple(Row(name, wall(samples), cpu(samples)) for name, samples in found.items())
    return Measure(title, "s", rows, "< 1.0 x the script, one after the other")


def _write(folder: Path, waiting: int, names: Sequence[str] = STACKS) -> None:
    wait = f'  provisioner "local-exec" {{ command = "sleep {waiting}" }}\n' if waiting else ""
    for name in names:
        (folder / name).mkdir()
        (folder / name / "main.tf").write_text(
            f'resource "terraform_data" "it" {{\n  input = "{name}"\n{wait}}}\n'
            'output "id" { value = terraform_data.it.id }\n'
        )


def _own(world: World, waiting: int) -> Sample:
    stages = (
        f"  {name}:\n    uses: terraform\n    with: {{source: ./{name}}}\n    outputs: {{id: {{type: string}}}}\n"
        for name in STACKS
    )
    folder = world.composition("tools", composition(stages))
    _write(folder, waiting)
    try:
        return world.up(folder)
    finally:
        shutil.rmtree(folder)


def _script(world: World, tool: str, waiting: int, *, together: bool) -> Sample:
    folder = world.fresh("script")
    _write(folder, waiting)
    steps = (
        f"( cd {name} && {tool} init -input=false -no-color && {tool} apply -input=false -no-color -auto-approve"
        f" && {tool} output -json )" + (" &" if together else "")
        for name in STACKS
    )
    ending = "for job in $(jobs -p); do wait $job; done" if together else ""
    (folder / "job.sh").write_text("\n".join(["set -eu", *steps, ending, ""]))
    try:
        return run([str(shutil.which("bash")), "job.sh"], folder, world.env)
    finally:
        shutil.rmtree(folder)
