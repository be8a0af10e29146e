"""The commands that run on hosts, as values: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skyspan.contracts.transport import Command, Effect
from skyspan.model.secret import Secret
from skyspan.providers.traffic import scripts
from skyspan.providers.traffic.orders import Program

FOREIGN, PORTS_TAKEN, NOT_AN_ADDRESS, ENDED = 90, 91, 92, 93
"""Exit statuses of `start_command`."""

LOOK_TIMEOUT_S = 30.0
CHANGE_TIMEOUT_S = 60.0

_LEAST_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Where:
    """A host with the number that the stage has there and the owner that is written there; None is this machine."""

    host: str | None
    number: str
    owner: str


@dataclass(frozen=True, slots=True)
class Inside:
    """A container, and how Docker is asked there (`docker`, `sudo -n docker`). Empty: the host itself."""

    docker: str = ""
    container: str = ""


@dataclass(frozen=True, slots=True)
class Role:
    """What goes on by itself at one end: `listen` or `send`. `ports` are tried in order by what listens; what
    sends pauses after each window, which may last `limit` seconds at most."""

    name: str
    mode: str
    digest: str
    program: Program
    inside: Inside = Inside()
    ports: Sequence[int] = ()
    pause: float = 0.0
    limit: float = 0.0


def listen_role(flow: str) -> str:
    """The name of what answers."""
    return f"{flow}.listen"


def send_role(flow: str) -> str:
    """The name of what makes the traffic."""
    return f"{flow}.send"


def _shell(script: str, where: Where, *arguments: str) -> tuple[str, ...]:
    return ("sh", "-euc", scripts.PLACES + script, "skyspan", where.number, where.owner, *arguments)


def survey_command(where: Where, containers: Sequence[str] = (), *, tools: bool) -> Command:
    """Look at what runs there; with `tools`, also at what could."""
    argv = _shell(scripts.SURVEY, where, "tools" if tools else "roles", *containers)
    return Command(argv, timeout_s=LOOK_TIMEOUT_S, effect=Effect.READ)


def start_command(where: Where, role: Role) -> Command:
    """Start a role anew."""
    pause = f"{max(role.pause, _LEAST_PAUSE_S):g}"
    ports = " ".join(str(port) for port in role.ports)
    what = (role.name, role.digest, role.mode, pause, f"{role.limit:g}")
    inside = (role.inside.docker, role.inside.container)
    argv = _shell(scripts.START, where, scripts.SUPERVISE, *what, *inside, ports, *role.program.argv)
    return Command(argv, stdin=role.program.text, timeout_s=CHANGE_TIMEOUT_S)


def end_command(where: Where, roles: Sequence[str]) -> Command:
    """End some roles."""
    return Command(_shell(scripts.END, where, *roles), timeout_s=CHANGE_TIMEOUT_S)


def remove_command(where: Where, *, keep: bool) -> Command:
    """End everything; unless its folders are kept, take it away."""
    return Command(_shell(scripts.REMOVE, where, "yes" if keep else "no"), timeout_s=CHANGE_TIMEOUT_S)


def sweep_command(where: Where, role: str, inside: Inside) -> Command:
    """End what a measurement that was cut off left running."""
    return Command(_shell(scripts.SWEEP, where, role, inside.docker, inside.container), timeout_s=CHANGE_TIMEOUT_S)


def measure_command(where: Where, role: str, program: Program, inside: Inside, timeout_s: float) -> Command:
    """Measure once; what it prints are the figures."""
    mark = f"SKYSPAN_TRAFFIC={where.number}.{role}@"
    entered = (*inside.docker.split(), "exec", "-i", "-e", mark, inside.container) if inside.container else ()
    argv = ("env", mark, "LC_ALL=C", *entered, *program.argv)
    # An empty Secret still closes standard input.
    text: Secret = program.text
    return Command(argv, stdin=text, timeout_s=timeout_s)
