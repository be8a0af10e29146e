"""Control groups of worlds: which hierarchies a machine has, and whose groups may be removed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from skyspan.rehearsal.isolation import cgroups
from skyspan.rehearsal.isolation.cgroups import Hierarchy

EACH = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
35 31 0:32 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
36 31 0:30 /docker /run/elsewhere/memory rw,relatime - cgroup cgroup rw,memory
"""

UNIFIED = """\
23 1 0:20 / /proc rw,relatime - proc proc rw
30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
"""


def test_each_controller_has_its_hierarchy_and_is_mounted_again_by_its_own_options() -> None:
    assert cgroups.hierarchies(EACH) == (
        Hierarchy(Path("/sys/fs/cgroup/cpu,cpuacct"), "cpu,cpuacct", "cpu,cpuacct"),
        Hierarchy(Path("/sys/fs/cgroup/memory"), "memory", "memory"),
        Hierarchy(Path("/sys/fs/cgroup/systemd"), "systemd", "none,name=systemd"),
    )


def test_the_unified_hierarchy_is_the_only_one_where_it_is_mounted_alone() -> None:
    assert cgroups.hierarchies(UNIFIED) == (Hierarchy(Path("/sys/fs/cgroup"), "", ""),)
    assert cgroups.hierarchies("") == ()


def group(mounted: Path, name: str, processes: str = "") -> Path:
    """Folders stand in for groups: the kernel's have files that go with them, so these have none that stay."""
    made = mounted / name
    made.mkdir()
    if processes:
        (made / "cgroup.procs").write_text(processes)
    return made


@pytest.fixture
def gone() -> str:
    """The name of the groups of a world whose process has ended."""
    with subprocess.Popen(["sleep", "60"]) as process:
        name = cgroups.own_name(process.pid)
        process.kill()
    return name


def test_groups_of_a_world_that_is_gone_are_removed_and_no_others(tmp_path: Path, gone: str) -> None:
    place = Hierarchy(tmp_path, "memory", "memory")
    living = group(tmp_path, cgroups.own_name(os.getpid()))
    others = [group(tmp_path, name) for name in ("docker", "skyspan", "skyspan-x-1")]
    (group(tmp_path, gone) / "lab-1/docker/0a").mkdir(parents=True)
    recycled = group(tmp_path, f"skyspan-{os.getpid()}-1")
    cgroups.sweep((place,))
    assert not (tmp_path / gone).exists()
    assert not recycled.exists(), "a process of the same number that started at another time is another one"
    assert living.is_dir()
    assert all(folder.is_dir() for folder in others)
    cgroups.sweep((place,), own=living.name)
    assert not living.exists()


def test_groups_with_processes_stay_as_another_namespace_may_number_them_otherwise(tmp_path: Path, gone: str) -> None:
    busy = group(tmp_path, gone, "17\n")
    cgroups.sweep((Hierarchy(tmp_path, "memory", "memory"),))
    assert busy.is_dir()


def test_a_machines_groups_are_fresh_and_have_processors_and_memory(tmp_path: Path) -> None:
    (tmp_path / "cpuset.cpus").write_text("0-1\n")
    old = tmp_path / "skyspan-1-1/lab-1/docker"
    old.mkdir(parents=True)
    (made,) = cgroups.make((Hierarchy(tmp_path, "cpuset", "cpuset"),), "skyspan-1-1", "lab-1")
    assert made.folder == tmp_path / "skyspan-1-1/lab-1"
    assert not old.exists()
    assert (made.name, made.options) == ("cpuset", "cpuset")
