"""How long commands take that do next to nothing, and planning, which does nothing but think."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.compositions import referring
from bench.peers import doit, snakemake
from bench.processes import Sample, run
from bench.report import SELF, Measure, Row
from bench.rounds import alternate, cpu, wall
from bench.world import ROOT, World, interpreter

SNAKEMAKE_LIMIT = 300
"""A chain that Snakemake can still plan: 520 stages end in a RecursionError."""


def start_up(world: World) -> list[Measure]:
    """Start to exit of the light commands."""
    home = world.fresh("home")
    hello = ROOT / "examples" / "hello"
    own: dict[str, Callable[[], Sample]] = {
        f"{SELF} --help": partial(world.sky, "--help", home=home),
        f"{SELF} validate": partial(world.sky, "validate", "-f", hello, home=home),
        f"{SELF} status": partial(world.sky, "status", "hello", home=home),
        f"{SELF} list": partial(world.sky, "list", home=home),
        f"{SELF} up hello": lambda: world.up(hello),
    }
    world.up(hello, home)
    peers: dict[str, Callable[[], Sample]] = {"python -c pass": partial(_run, world, interpreter(), "-c", "pass")}
    for name in ("doit", "luigi", "snakemake", "unfurl"):
        path = world.peer(name)
        if path is not None and not (world.quick and name in ("snakemake", "unfurl")):
            peers[f"{name} --help"] = partial(_run, world, path, "--help")
    found = alternate(own | peers, world.rounds(11, quick=5))
    rows = {name: Row(name, 1000 * wall(samples), 1000 * cpu(samples)) for name, samples in found.items()}
    beside = tuple(rows[name] for name in peers)
    light = (rows[f"{SELF} validate"], rows[f"{SELF} --help"], *beside)
    stored = (rows[f"{SELF} status"], rows[f"{SELF} list"], *beside)
    return [
        Measure("Start to exit of what reads no store", "ms", light, "< 150 ms"),
        Measure("Start to exit of what opens the store", "ms", stored, "< 350 ms"),
        Measure("`skyspan up -f examples/hello`, the first time", "ms", (rows[f"{SELF} up hello"],), "< 1000 ms"),
    ]


def _run(world: World, *argv: str | Path) -> Sample:
    return run(argv, world.folder, world.env)


def planning(world: World) -> list[Measure]:
    """Compositions whose stages read each other's outputs: through the passes alone, and as whole commands."""
    sizes = (100, 300) if world.quick else (100, 300, 1000)
    folders = {size: world.composition("plan", referring(size)) for size in sizes}
    subjects: dict[str, Callable[[], float]] = {
        f"{SELF}, {size} stages": partial(_load_and_check, folder) for size, folder in folders.items()
    }
    found = {name: min(values) for name, values in alternate(subjects, world.rounds(5)).items()}
    largest = sizes[-1]
    rows = []
    for size in reversed(sizes):
        value = found[f"{SELF}, {size} stages"]
        rows.append(Row(f"{SELF}, {size} stages", value, note=f"{value / size * 1000:.3f} ms per stage"))
    budget = "1000 stages < 1 s, linear"
    return [
        Measure("Planning: load, check and order", "s", tuple(rows), budget),
        _whole_plans(world, folders[largest], largest, budget),
    ]


def _whole_plans(world: World, folder: Path, size: int, budget: str) -> Measure:
    home = world.fresh("home")
    subjects: dict[str, Callable[[], Sample]] = {
        f"{SELF} plan": partial(world.sky, "--json", "plan", "-f", folder, home=home),
        f"{SELF} validate": partial(world.sky, "validate", "-f", folder, home=home),
    }
    if path := world.peer("doit"):
        job = world.fresh("doit")
        doit(job, size, "true", True)
        subjects["doit list"] = partial(run, [path, "list", "--all", "--status"], job, world.env)
    if (path := world.peer("snakemake")) and not world.quick:
        job = world.fresh("snakemake")
        arguments = snakemake(job, SNAKEMAKE_LIMIT, "true", True)
        subjects["snakemake --dry-run"] = partial(run, [path, *arguments, "--dry-run"], job, world.env)
    notes = {"snakemake --dry-run": f"{SNAKEMAKE_LIMIT} stages: longer chains exceed its recursion limit"}
    found = alternate(subjects, world.rounds(3, quick=1))
    rows = tuple(Row(name, wall(samples), cpu(samples), notes.get(name, "")) for name, samples in found.items())
    return Measure(f"Planning {size} stages, whole commands", "s", rows, budget)


def _load_and_check(folder: Path) -> float:
    from skyspan.app.load import load_checked
    from skyspan.providers.registry import Registry

    gc.collect()
    started = time.perf_counter()
    load_checked(folder, Registry().spec_of)
    return time.perf_counter() - started
