"""The commands of an `ansible` stage (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from skyspan.contracts.transport import Command, Effect, StopLadder
from skyspan.model.secret import Secret
from skyspan.providers.ansible.spec import AnsibleSpec

CALLBACK = "ansible.posix.jsonl"
"""Prints one JSON object per event; part of the `ansible.posix` collection, not of ansible-core."""

_LADDER = StopLadder(first_s=60.0, second_s=15.0)


@dataclass(frozen=True, slots=True)
class Paths:
    """Where this run's files are; all absolute."""

    program: str
    folder: str
    inventory: str
    variables: str
    home: str
    collections: str


def playbook(spec: AnsibleSpec, paths: Paths, playbook: str, *, check: bool) -> Command:
    """Run a playbook; in check mode it only looks, so its effect is READ."""
    argv = [paths.program, "-i", paths.inventory, "-e", f"@{paths.variables}", "--forks", str(spec.forks)]
    if spec.tags:
        argv += ["--tags", ",".join(spec.tags)]
    if spec.skip_tags:
        argv += ["--skip-tags", ",".join(spec.skip_tags)]
    if spec.become:
        argv.append("--become")
    if check:
        argv.append("--check")
    return Command(
        (*argv, playbook),
        env=environment(spec, paths),
        cwd=paths.folder,
        stdin=b"",
        effect=Effect.READ if check else Effect.WRITE,
        ladder=_LADDER,
    )


def galaxy(program: str, kind: str, requirements: str, paths: Paths, spec: AnsibleSpec) -> Command:
    """Install what a requirements file names (`kind` is role or collection) below the stage's work folder."""
    target = f"{paths.collections}/roles" if kind == "role" else paths.collections
    argv = (program, kind, "install", "-r", requirements, "-p", target)
    return Command(argv, env=environment(spec, paths), cwd=paths.folder, stdin=b"", effect=Effect.READ)


def environment(spec: AnsibleSpec, paths: Paths) -> Mapping[str, str | Secret]:
    """Settings of ansible.cfg as variables, so that no machine's own configuration changes what is parsed."""
    return {
        "ANSIBLE_STDOUT_CALLBACK": CALLBACK,
        "ANSIBLE_SHOW_CUSTOM_STATS": "1",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_HOST_KEY_CHECKING": "1",
        "ANSIBLE_RETRY_FILES_ENABLED": "0",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0",
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
        "ANSIBLE_INTERPRETER_PYTHON": "auto_silent",
        "ANSIBLE_HOME": paths.home,
        "ANSIBLE_LOCAL_TEMP": f"{paths.home}/tmp",
        "ANSIBLE_COLLECTIONS_PATHS": f"{paths.collections}:~/.ansible/collections:/usr/share/ansible/collections",
        "ANSIBLE_ROLES_PATH": f"{paths.collections}/roles:~/.ansible/roles:/usr/share/ansible/roles:/etc/ansible/roles",
        **_shared_connections(f"{paths.home}/cp"),
        "ANSIBLE_TIMEOUT": "20",
        **spec.env,
    }


def _shared_connections(folder: str) -> Mapping[str, str]:
    """One connection per host for all its tasks, where the path of its socket is short enough.

    A shared connection that outlives the run would hold the host's key in use; 15 s spans the gap between tasks. A
    socket's path has 107 bytes at most (unix(7)); Ansible's names have 10, and ssh adds 17 to make it at first.
    """
    if len(folder.encode()) + 1 + 10 + 17 > _LONGEST_SOCKET:
        return {"ANSIBLE_SSH_ARGS": "-C"}
    return {
        "ANSIBLE_SSH_ARGS": "-C -o ControlMaster=auto -o ControlPersist=15s",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": folder,
    }


_LONGEST_SOCKET = 107
