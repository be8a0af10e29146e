"""Settings: the only place that reads the process environment, once, into a frozen value."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from skyspan.model.address import is_name
from skyspan.model.error import UsageError

INPUT_PREFIX = "SKYSPAN_INPUT_"
DEFAULT_WORKSPACE = "default"
DEFAULT_CONCURRENCY = 16
DEFAULT_LEASE_S = 30.0

_PRIVATE_PREFIX = "SKYSPAN_"
_IDENTITIES = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that comes from outside the composition and the command line's own arguments.

    `store` is a `postgresql://` URL or a path of a SQLite file. `child_env` is what children inherit: the
    environment without Skyspan's own variables. `tool_folders` come before PATH; images of containers are in
    `image_folders`. `known_hosts` is the file of host keys that SSH trusts, `identities` the key files it may offer.
    `rehearsal_secrets` is a file of secrets for the stand-in world. `lease_s` is how long a run that gives no sign of
    life keeps its deployment; `fault` names a crash point at which to be killed, for tests. `credentials` is the folder
    where systemd puts them.
    """

    home: Path
    workspace: str
    store: str
    person: str
    machine: str
    concurrency: int = DEFAULT_CONCURRENCY
    passphrase: str | None = field(default=None, repr=False)
    passphrase_command: str | None = None
    credentials: Path | None = None
    inputs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    child_env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    tool_folders: tuple[Path, ...] = ()
    image_folders: tuple[Path, ...] = ()
    tool_settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    known_hosts: Path | None = None
    identities: tuple[Path, ...] = ()
    ssh_agent: str | None = None
    user_home: Path = Path("/")
    rehearsal: bool = False
    rehearsal_secrets: Path | None = None
    lease_s: float = DEFAULT_LEASE_S
    fault: str = ""


def read_settings(
    home: str | None = None, workspace: str | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """The settings from the environment; `home` and `workspace` are the command line's, which win.

    Raises UsageError for values that cannot be.
    """
    env = os.environ if environ is None else environ
    folder = Path(home or env.get("SKYSPAN_HOME") or _default_home(env)).expanduser().absolute()
    user_home = Path(env.get("HOME") or "~").expanduser()
    space = workspace or env.get("SKYSPAN_WORKSPACE") or DEFAULT_WORKSPACE
    if not is_name(space):
        raise UsageError(f"{space!r} is no workspace name", hint="use lower-case letters, digits, - and _")
    return Settings(
        home=folder,
        workspace=space,
        store=env.get("SKYSPAN_STORE") or str(folder / "skyspan.db"),
        person=_person(env),
        machine=socket.gethostname(),
        concurrency=_count(env, "SKYSPAN_CONCURRENCY", DEFAULT_CONCURRENCY),
        passphrase=env.get("SKYSPAN_PASSPHRASE"),
        passphrase_command=env.get("SKYSPAN_PASSPHRASE_COMMAND"),
        credentials=next(iter(_paths(env.get("CREDENTIALS_DIRECTORY", ""))), None),
        inputs={key.removeprefix(INPUT_PREFIX): value for key, value in env.items() if key.startswith(INPUT_PREFIX)},
        child_env={key: value for key, value in env.items() if not key.startswith(_PRIVATE_PREFIX)},
        tool_folders=_tool_folders(env),
        image_folders=tuple(folder.parent / "images" for folder in _tool_folders(env)),
        tool_settings=_tool_settings(env),
        known_hosts=Path(env.get("SKYSPAN_KNOWN_HOSTS") or user_home / ".ssh" / "known_hosts"),
        identities=tuple(path for name in _IDENTITIES if (path := user_home / ".ssh" / name).is_file()),
        ssh_agent=env.get("SSH_AUTH_SOCK"),
        user_home=user_home,
        rehearsal=bool(env.get("SKYSPAN_REHEARSAL")),
        lease_s=_seconds(env, "SKYSPAN_LEASE_SECONDS", DEFAULT_LEASE_S),
        fault=env.get("SKYSPAN_FAULT", ""),
        rehearsal_secrets=next(iter(_paths(env.get("SKYSPAN_REHEARSAL_SECRETS", ""))), None),
    )


@dataclass(frozen=True, slots=True)
class ToolFinder:
    """Finds external programs: the installation's own folders first, then PATH. A `contracts.context.Tools`."""

    folders: tuple[Path, ...]
    path: str
    settings: Mapping[str, str]

    def find(self, *names: str) -> Path | None:
        """The first of `names` that is an executable."""
        search = os.pathsep.join([*map(str, self.folders), self.path])
        for name in names:
            found = shutil.which(name, path=search)
            if found:
                return Path(found).absolute()
        return None


def _default_home(env: Mapping[str, str]) -> str:
    state = env.get("XDG_STATE_HOME") or str(Path(env.get("HOME") or "~").expanduser() / ".local" / "state")
    return str(Path(state) / "skyspan")


def _person(env: Mapping[str, str]) -> str:
    """Who is shown as the one who asked; a name for people, not an identity to trust."""
    try:
        return env.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _count(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise UsageError(f"{name} must be a whole number from 1 to 1000, not {text!r}")
    return int(text)


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name, "")
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.3 <= seconds <= 3600:
        raise UsageError(f"{name} must be a number of seconds from 0.3 to 3600, not {text!r}")
    return seconds


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(part).expanduser().absolute() for part in text.split(os.pathsep) if part)


def _installation() -> Path:
    """The folder that holds the virtual environment: a checkout keeps its built tools beside it."""
    return Path(sys.prefix).parent / ".tools"


def _tool_folders(env: Mapping[str, str]) -> tuple[Path, ...]:
    return (*_paths(env.get("SKYSPAN_TOOLS", "")), _installation() / "bin")


def _tool_settings(env: Mapping[str, str]) -> Mapping[str, str]:
    """Settings that providers ask for by name. A Terraform CLI configuration named by the environment is used only
    when it exists: some machines name one that does not, and every call then warns."""
    found: dict[str, str] = {}
    for candidate in (
        env.get("SKYSPAN_TERRAFORM_CONFIG"),
        str(_installation() / "terraform.rc"),
        env.get("TF_CLI_CONFIG_FILE"),
    ):
        if candidate and Path(candidate).is_file():
            found["terraform_config"] = candidate
            break
    if env.get("SKYSPAN_TERRAFORM_OVERRIDE"):
        found["terraform_override"] = env["SKYSPAN_TERRAFORM_OVERRIDE"]
    if env.get("SKYSPAN_KNOWN_HOSTS"):
        found["known_hosts"] = env["SKYSPAN_KNOWN_HOSTS"]
    return MappingProxyType(found)


def process_environment() -> Mapping[str, str]:
    """The whole environment as it is, for a child that is Skyspan itself."""
    return dict(os.environ)


def colours(environ: Mapping[str, str] | None = None) -> bool | None:
    """False where `NO_COLOR` is set to anything (no-color.org); else None: colours where there is a terminal."""
    env = os.environ if environ is None else environ
    return False if env.get("NO_COLOR") else None
