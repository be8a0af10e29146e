"""The commands that run on a speaker, as values: pure."""

from __future__ import annotations

from collections.abc import Sequence

from skyspan.contracts.transport import Command, Effect
from skyspan.model.secret import Secret
from skyspan.networks.bgp import frr, scripts
from skyspan.networks.bgp.speaking import Instance

TAKEN = 90
"""Exit status of `prepare_command` when somebody else has the instance's name."""

REFUSED = 93
"""Exit status of `prepare_command` when the daemon refuses the configuration."""

WENT_BACK = 94
"""Exit status of `switch_command` when the daemon failed with the new configuration and runs with the one before."""

LOOK_TIMEOUT_S = 30.0
CHANGE_TIMEOUT_S = 60.0
PROBE_TIMEOUT_S = 5.0


def _shell(script: str, who: tuple[str, str, bool], arguments: tuple[str, ...] = ()) -> tuple[str, ...]:
    """`who` is identity and owner, and whether root must be asked for."""
    identity, owner, sudo = who
    argv = ("sh", "-euc", scripts.PLACES + script, "skyspan", identity, owner, *arguments)
    return ("sudo", "-n", *argv) if sudo else argv


def _who(instance: Instance) -> tuple[str, str, bool]:
    return instance.identity, instance.owner, instance.sudo


def survey_command(instance: Instance, targets: Sequence[str]) -> Command:
    """Look at a speaker, and at which way it sends what goes to `targets`."""
    sessions = " ".join(f"{item.name},{item.peer},{item.version}" for item in instance.conversations)
    argv = _shell(scripts.SURVEY, _who(instance), (sessions, " ".join(targets)))
    return Command(argv, timeout_s=LOOK_TIMEOUT_S, effect=Effect.READ)


def probe_command(ways: Sequence[tuple[str, str]], *, sudo: bool) -> Command:
    """Ping each target from its source, all at once."""
    lines = "".join(f"{source} {target}\n" for source, target in ways)
    argv = ("sh", "-euc", scripts.PROBE, "skyspan", lines)
    return Command(("sudo", "-n", *argv) if sudo else argv, timeout_s=PROBE_TIMEOUT_S, effect=Effect.READ)


def prepare_command(instance: Instance, daemon: str, config: Secret) -> Command:
    """Claim the instance and have its configuration checked."""
    argv = _shell(scripts.PREPARE, _who(instance), (daemon,))
    return Command(argv, stdin=config, timeout_s=CHANGE_TIMEOUT_S)


def switch_command(
    instance: Instance, daemon: tuple[str, int], peers: Sequence[str], change: Secret, *, reload: bool
) -> Command:
    """Give the prepared configuration to the daemon, of which name and metric are given; `change` is for FRR alone."""
    name, metric = daemon
    arguments = (
        name,
        "reload" if reload else "start",
        str(metric),
        str(instance.port),
        "".join(f"{line}\n" for line in peers),
        "".join(f"{net}\n" for net in instance.imports),
        frr.STARTUP,
    )
    return Command(_shell(scripts.SWITCH, _who(instance), arguments), stdin=change, timeout_s=CHANGE_TIMEOUT_S)


def discard_command(instance: Instance) -> Command:
    """Forget the prepared configuration."""
    return Command(_shell(scripts.DISCARD, _who(instance)), timeout_s=CHANGE_TIMEOUT_S)


def back_command(instance: Instance, digest: str) -> Command:
    """Go back to the configuration of before, from the one with this digest."""
    argv = _shell(scripts.BACK, _who(instance), (str(instance.port), frr.STARTUP, digest))
    return Command(argv, timeout_s=CHANGE_TIMEOUT_S)


def lower_command(identity: str, owner: str, *, sudo: bool) -> Command:
    """End the daemons, keep the files."""
    return Command(_shell(scripts.LOWER, (identity, owner, sudo)), timeout_s=CHANGE_TIMEOUT_S)


def remove_command(identity: str, owner: str, *, sudo: bool) -> Command:
    """Take everything away."""
    return Command(_shell(scripts.REMOVE, (identity, owner, sudo)), timeout_s=CHANGE_TIMEOUT_S)
