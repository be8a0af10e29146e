"""Steps the clock of the processes of one PID namespace, now and in what they start, statically linked ones included.

Linux has one real-time clock for all namespaces. What programs read is the kernel's code in their own memory, the vDSO;
here it is replaced, process by process, by code that asks the kernel and adds the step. ptrace(2) stops a process while
that is done, and reports every new program before its first instruction. Standard library only and run by path, on
x86-64. Constants are those of <linux/ptrace.h>, <linux/elf.h> and <asm/unistd_64.h>.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

SEIZE, INTERRUPT, LISTEN, CONTINUE, PEEK_USER = 0x4206, 0x4207, 0x4208, 7, 3
FORK, VFORK, CLONE, EXEC, STOP = 1, 2, 3, 4, 128
OPTIONS = 1 << FORK | 1 << VFORK | 1 << CLONE | 1 << EXEC
WAIT_ALL = 0x40000000
RIP = 16 * 8
JOB_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

GATHER_S = 5.0
"""How long it may take until every process was met outside the code that is replaced."""

_CLOCK_GETTIME = "b8e4000000 0f05 83ff00 740b 83ff05 7406 83ff0b 7401 c3 85c0 750d 48b9 {wide} 48010e c3"
_GETTIMEOFDAY = "b860000000 0f05 85c0 7512 4885ff 740d 48b9 {wide} 48010f c3"
_TIME = "b8c9000000 0f05 4805 {narrow} 4885ff 7403 488907 c3"
_CODE: Mapping[str, str] = MappingProxyType(
    {"__vdso_clock_gettime": _CLOCK_GETTIME, "__vdso_gettimeofday": _GETTIMEOFDAY, "__vdso_time": _TIME}
)
"""Machine code of each function: the system call of the same name, then the step added to the seconds it wrote (for
CLOCK_REALTIME, CLOCK_REALTIME_COARSE and CLOCK_TAI) or returns."""


def code(step: int) -> Mapping[str, bytes]:
    """The functions that read a clock `step` seconds ahead (behind, if negative)."""
    wide, narrow = struct.pack("<q", step).hex(), struct.pack("<i", step).hex()
    return {name: bytes.fromhex(text.format(wide=wide, narrow=narrow)) for name, text in _CODE.items()}


def functions(image: bytes) -> Mapping[str, int]:
    """Where the functions are in a vDSO, by its symbol table (ELF-64)."""
    sections, size, count = struct.unpack_from("<Q", image, 0x28)[0], *struct.unpack_from("<HH", image, 0x3A)
    table = [struct.unpack_from("<IIQQQQIIQQ", image, sections + number * size) for number in range(count)]
    found = {}
    for section in table:
        if section[1] != 11:  # the dynamic symbols
            continue
        names = table[section[6]][4]
        for place in range(section[4], section[4] + section[5], 24):
            name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", image, place)
            text = image[names + name : image.index(b"\0", names + name)].decode()
            if text in _CODE:
                found[text] = value
    return found


def vdso(pid: int) -> tuple[int, int] | None:
    """First address and end of a process's vDSO; None for one that has none (a kernel thread, a process that ends)."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return None
    found = re.search(r"^([0-9a-f]+)-([0-9a-f]+) .*\[vdso\]$", maps, re.MULTILINE)
    return (int(found[1], 16), int(found[2], 16)) if found else None


class Stepper:
    """Traces every process of the namespace whose first process is `first`."""

    def __init__(self, first: int, step: int) -> None:
        self._first = first
        self._code = code(step)
        self._library = ctypes.CDLL(None, use_errno=True)
        self._library.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
        self._library.ptrace.restype = ctypes.c_long
        own = vdso(os.getpid())
        assert own is not None, "every process has a vDSO"
        with Path("/proc/self/mem").open("rb") as memory:
            memory.seek(own[0])
            self._places = functions(memory.read(own[1] - own[0]))
        self._traced: set[int] = set()
        self._held: dict[int, int] = {}

    def gather(self) -> None:
        """Trace all threads there are and replace the code of every process; raises OSError, TimeoutError."""
        until = time.monotonic() + GATHER_S
        while new := {thread for _, thread in self._threads()} - self._traced:
            for thread in new:
                if self._ptrace(SEIZE, thread, OPTIONS):
                    self._traced.add(thread)
        waiting = {process for process, _ in self._threads()}
        while waiting:
            if time.monotonic() > until:
                raise TimeoutError(f"could not stop {len(waiting)} processes")
            waiting -= {process for process in waiting if self._replaced(process)}

    def follow(self) -> None:
        """Replace the code of whatever is started from now on, until nothing is left to trace."""
        heard, tell = os.pipe()
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while self._traced:
            while self._listen():
                pass
            if select.select([heard], [], [], 1.0)[0]:
                os.read(heard, 4096)

    def _threads(self) -> Iterator[tuple[int, int]]:
        namespace = Path(f"/proc/{self._first}/ns/pid").readlink()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if (entry / "ns/pid").readlink() == namespace:
                    for thread in (entry / "task").iterdir():
                        yield int(entry.name), int(thread.name)
            except OSError:
                continue  # it ended while we looked

    def _replaced(self, process: int) -> bool:
        """Stop all threads of a process and replace its code, unless one is just running in it."""
        threads = {thread for one, thread in self._threads() if one == process}
        region = vdso(process)
        for thread in threads & self._traced:
            self._ptrace(INTERRUPT, thread)
        until = time.monotonic() + 1.0
        while not threads & self._traced <= self._held.keys() and time.monotonic() < until:
            if not self._listen(hold=True):
                time.sleep(0.0005)
        done = threads & self._traced <= self._held.keys()
        if done and region is not None:
            inside = [thread for thread in threads if region[0] <= self._where(thread) < region[1]]
            done = not inside and self._replace(process)
        for thread, number in self._held.items():
            self._ptrace(LISTEN if number in JOB_STOPS else CONTINUE, thread)
        self._held.clear()
        return done

    def _replace(self, process: int) -> bool:
        first = (vdso(process) or (0, 0))[0]
        try:
            with Path(f"/proc/{process}/mem").open("r+b", buffering=0) as memory:
                for name, place in self._places.items():
                    memory.seek(first + place)
                    memory.write(self._code[name])
        except OSError:
            return not Path(f"/proc/{process}/mem").exists()  # it ended meanwhile
        return True

    def _listen(self, *, hold: bool = False) -> bool:
        """Handle one report, if there is one. With `hold`, it stays stopped, and is remembered with its signal."""
        try:
            thread, status = os.waitpid(-1, WAIT_ALL | os.WNOHANG)
        except ChildProcessError:
            self._traced.clear()
            return False
        if thread == 0:
            return False
        if not os.WIFSTOPPED(status):
            self._traced.discard(thread)
            self._held.pop(thread, None)
            return True
        self._traced.add(thread)
        number, event = os.WSTOPSIG(status), status >> 16
        if event == STOP and hold:
            self._held[thread] = number
        elif event == STOP and number in JOB_STOPS:
            self._ptrace(LISTEN, thread)
        else:
            if event == EXEC:
                self._replace(thread)
            self._ptrace(CONTINUE, thread, 0 if event else number)
        return True

    def _where(self, thread: int) -> int:
        return int(self._library.ptrace(PEEK_USER, thread, RIP, None)) & (1 << 64) - 1

    def _ptrace(self, request: int, thread: int, data: int = 0) -> bool:
        """Whether it was done; a thread that has ended cannot be."""
        if self._library.ptrace(request, thread, None, data) == 0:
            return True
        number = ctypes.get_errno()
        if number == 3:  # ESRCH: it ended, or runs
            return False
        raise OSError(number, f"ptrace: {os.strerror(number)}")


def main(first: int, step: int) -> None:
    """Step the clock, say a word, and go on following; with a step of 0 there is nothing to follow."""
    stepper = Stepper(first, step)
    stepper.gather()
    os.write(1, b"stepped\n")
    if step:
        stepper.follow()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
