"""What the words of an instruction mean, whether they are said from inside a world or declared beforehand (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from skyspan.model.error import UsageError
from skyspan.rehearsal.faults.between_sites import Faults, changed
from skyspan.rehearsal.faults.on_hosts import Act, act
from skyspan.rehearsal.spec import Rehearsal


def meaning(words: Sequence[str], faults: Faults, rehearsal: Rehearsal) -> Act | Faults:
    """What befalls a stand-in, or the faults that are there then instead of `faults`.

    Raises UsageError for what means nothing or cannot be.
    """
    return act(list(words), rehearsal) or changed(faults, list(words), rehearsal.sites)


def mistakes(rehearsal: Rehearsal) -> Iterator[tuple[int, UsageError]]:
    """The declared troubles whose `fault` means nothing or cannot be, by their place in the list, and why."""
    faults = Faults()
    for number, trouble in enumerate(rehearsal.trouble):
        try:
            meant = None if trouble.fault is None else meaning(trouble.fault.split(), faults, rehearsal)
        except UsageError as error:
            yield number, error
        else:
            faults = meant if isinstance(meant, Faults) else faults
