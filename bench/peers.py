"""The same jobs for the peers: each function writes what a peer reads, and gives the command that runs it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

Job = Callable[[Path, int, str, bool], list[str]]
"""(folder, stages, one process as a shell would write it, chained or independent) -> arguments after the command."""


def doit(folder: Path, size: int, process: str, chained: bool) -> list[str]:
    after = '[f"stage:{n - 1}"] if n else []' if chained else "[]"
    (folder / "dodo.py").write_text(
        f"""from doit.tools import run_once

def task_stage():
    for n in range({size}):
        yield {{"name": str(n), "actions": [{process.split()!r}], "task_dep": {after}, "uptodate": [run_once]}}
"""
    )
    return ["run", "--reporter", "zero", "--verbosity", "0", *([] if chained else ["-n", str(size), "-P", "thread"])]


def luigi(folder: Path, size: int, process: str, chained: bool) -> list[str]:
    """Its own way to remember what is done is a file per task."""
    wanted = f"[Stage(n={size - 1})]" if chained else f"[Stage(n=n) for n in range({size})]"
    (folder / "job.py").write_text(
        f"""import subprocess
import luigi

class Stage(luigi.Task):
    n = luigi.IntParameter()
    def requires(self):
        return [Stage(n=self.n - 1)] if {chained} and self.n else []
    def output(self):
        return luigi.LocalTarget(f"done/{{self.n}}")
    def run(self):
        subprocess.run({process.split()!r}, check=True)
        with self.output().open("w") as file:
            file.write("done")

if not luigi.build({wanted}, local_scheduler=True, workers={1 if chained else size}, log_level="ERROR"):
    raise SystemExit(1)
"""
    )
    return ["job.py"]


def snakemake(folder: Path, size: int, process: str, chained: bool) -> list[str]:
    last = [f"done/{size - 1}"] if chained else [f"done/{n}" for n in range(size)]
    rules = [f"rule all:\n    input: {', '.join(map(repr, last))}\n"]
    for n in range(size):
        above = f"    input: 'done/{n - 1}'\n" if chained and n else ""
        rules.append(f"rule s{n}:\n{above}    output: touch('done/{n}')\n    shell: {process!r}\n")
    (folder / "Snakefile").write_text("\n".join(rules))
    return ["--quiet", "all", "--cores", "1" if chained else str(size)]


def unfurl(folder: Path, size: int, process: str, chained: bool) -> list[str]:
    text = f"""apiVersion: unfurl/v1alpha1
kind: Ensemble
spec:
  service_template:
    tosca_definitions_version: tosca_simple_unfurl_1_0_0
    node_types:
      Stage:
        derived_from: tosca.nodes.Root
        requirements:
          - after: {{node: Stage, relationship: tosca.relationships.DependsOn, occurrences: [0, 1]}}
        interfaces:
          Standard:
            operations:
              create: {{implementation: {{primary: Cmd}}, inputs: {{cmd: "{process}"}}}}
    topology_template:
      node_templates:
"""
    for n in range(size):
        above = f", requirements: [{{after: s{n - 1}}}]" if chained and n else ""
        text += f"        s{n}: {{type: Stage{above}}}\n"
    (folder / "ensemble.yaml").write_text(text)
    return ["--home", "", "-qq", "deploy", "--approve", "--jobexitcode", "error", "--output", "none", "ensemble.yaml"]


def bash(folder: Path, size: int, process: str, chained: bool) -> list[str]:
    """By hand; with the program's path, as bash would else use a builtin of that name."""
    program, *arguments = process.split()
    line = shlex.join([shutil.which(program) or program, *arguments])
    lines = [line + ("" if chained else " &") for _ in range(size)]
    (folder / "job.sh").write_text("\n".join(["set -eu", *lines, "wait", ""]))
    return ["job.sh"]


JOBS: Mapping[str, tuple[str, Job]] = MappingProxyType(
    {
        "doit": ("doit", doit),
        "luigi": ("python", luigi),
        "snakemake": ("snakemake", snakemake),
        "unfurl": ("unfurl", unfurl),
    }
)
"""Each peer's command in its environment, and its job."""
