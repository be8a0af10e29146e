"""The commands that run on a member, as values: pure."""

from __future__ import annotations

from dataclasses import dataclass

from skyspan.contracts.transport import Command, Effect
from skyspan.model.secret import Secret
from skyspan.networks.tailscale import scripts

TAKEN = 90
"""Exit status when the host's membership is another stage's."""

NO_DAEMON = 93
"""Exit status when tailscaled does not answer, even after its service was started."""

NOT_UP = 94
"""Exit status of `change_command` when `tailscale up` fails; standard output then holds the daemon's status."""

UNHEARD = 95
"""Exit status when the control server does not answer a logout."""

LOOK_TIMEOUT_S = 40.0
CHANGE_TIMEOUT_S = 120.0
INSTALL_TIMEOUT_S = 900.0
PROBE_TIMEOUT_S = 6.0


@dataclass(frozen=True, slots=True)
class Place:
    """A host, in whose name it is changed, and whether root must be asked for."""

    host: str
    owner: str
    sudo: bool = False


def _shell(script: str, place: Place, arguments: tuple[str, ...]) -> tuple[str, ...]:
    argv = ("sh", "-euc", scripts.PLACES + script, "skyspan", place.owner, *arguments)
    return ("sudo", "-n", *argv) if place.sudo else argv


def survey_command(place: Place, *, peers: bool = False) -> Command:
    """Look at a host, and with `peers` at what it was told of the other members."""
    return Command(
        _shell(scripts.SURVEY, place, ("peers",) if peers else ()), timeout_s=LOOK_TIMEOUT_S, effect=Effect.READ
    )


def install_command(place: Place, method: str, source: str, system: tuple[str, str]) -> Command:
    """Put Tailscale there, or a newer one."""
    return Command(_shell(scripts.INSTALL, place, (method, source, *system)), timeout_s=INSTALL_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class Move:
    """What is to happen to a membership: `join`, `rejoin`, `raise`, `restart` or `set`.

    `prior` are flags that bring back the settings of before this stage came; `families` are those that a subnet router
    forwards."""

    action: str
    flags: tuple[str, ...] = ()
    prior: tuple[str, ...] = ()
    families: tuple[int, ...] = ()

    @property
    def needs_key(self) -> bool:
        """Whether it cannot be done without the auth key."""
        return self.action in ("join", "rejoin")


def change_command(place: Place, move: Move, within_s: float, key: Secret | None) -> Command:
    """Carry out a move; the key goes by standard input, and only where it is needed."""
    assert (key is not None) is move.needs_key, "the key goes where it is needed and nowhere else"
    families = " ".join(map(str, move.families))
    arguments = (move.action, str(max(1, round(within_s))), families, "\n".join(move.prior), *move.flags)
    return Command(_shell(scripts.CHANGE, place, arguments), stdin=key, timeout_s=within_s + CHANGE_TIMEOUT_S)


def lower_command(place: Place) -> Command:
    """Suspend a membership of ours."""
    return Command(_shell(scripts.LOWER, place, ()), timeout_s=CHANGE_TIMEOUT_S)


def restart_command(place: Place) -> Command:
    """Restart the daemon."""
    return Command(_shell(scripts.RESTART, place, ()), timeout_s=CHANGE_TIMEOUT_S)


def remove_command(place: Place) -> Command:
    """Take everything of ours away."""
    return Command(_shell(scripts.REMOVE, place, ()), timeout_s=INSTALL_TIMEOUT_S)


def ping_command(place: Place, target: str, within: str) -> Command:
    """One packet through the tunnel; `within` as `tailscale ping --timeout` has it (`900ms`)."""
    script = scripts.PING
    argv = ("sh", "-euc", "PATH=$PATH:/usr/sbin:/sbin" + script, "skyspan", within, target)
    return Command(("sudo", "-n", *argv) if place.sudo else argv, timeout_s=PROBE_TIMEOUT_S, effect=Effect.READ)
