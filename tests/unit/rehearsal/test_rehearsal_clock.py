from __future__ import annotations

import platform
from pathlib import Path

from skyspan.rehearsal.faults.clock import code, functions, vdso

NAMES = {"__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time"}


def test_the_step_is_in_every_function_and_its_sign_too() -> None:
    for step in (3600, -1):
        made = code(step)
        assert made.keys() == NAMES
        for name, text in made.items():
            size = 4 if name == "__vdso_time" else 8
            assert step.to_bytes(size, "little", signed=True) in text
            assert text.endswith(b"\xc3"), "it returns"


def test_every_function_is_found_in_this_machines_own_and_has_the_room() -> None:
    region = vdso(int(Path("/proc/self").resolve().name))
    assert region is not None
    with Path("/proc/self/mem").open("rb") as memory:
        memory.seek(region[0])
        image = memory.read(region[1] - region[0])
    places = functions(image)
    # Those of other processors have other names, and no clock is stepped there.
    assert places.keys() == (NAMES if platform.machine() == "x86_64" else set())
    starts = sorted(places.values())
    for name, place in places.items():
        later = [start for start in starts if start > place]
        assert place + len(code(0)[name]) <= min([*later, len(image)])
