"""The starting line: whatever the arguments hold, a real POSIX shell passes them on."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyspan.transports.remote_shell import BOOTSTRAP, Word, remnant_script, signal_script, starting_line

NO_NUL = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
SHELLS = [shell for shell in ("sh", "bash", "dash") if shutil.which(shell)]


def start(line: str, after: bytes = b"", login_shell: str = "sh") -> bytes:
    done = subprocess.run([login_shell, "-c", BOOTSTRAP], input=line.encode() + after, capture_output=True, check=False)
    return done.stdout


@settings(max_examples=100, deadline=None)
@given(arguments=st.lists(NO_NUL, max_size=4), value=NO_NUL, after=st.binary(max_size=50))
def test_arguments_environment_and_input_arrive_as_they_are(arguments: list[str], value: str, after: bytes) -> None:
    script = 'printf "%s|" "$@"; printf "%s|" "$VALUE"; cat'
    line = starting_line("MARK", ["sh", "-c", script, "sh", *arguments], {"VALUE": value}, "/")
    assert line.count("\n") == 1
    first, rest = start(line, after).split(b"\n", 1)
    assert first.split()[:2] == [b"MARK", Word.STARTED.encode()]
    expected = "".join(f"{part}|" for part in (*(arguments or [""]), value)).encode()
    assert rest == expected + after


@pytest.mark.parametrize("login_shell", SHELLS)
def test_every_login_shell_understands_the_bootstrap(login_shell: str) -> None:
    line = starting_line("MARK", ["pwd"], {}, "/usr")
    assert start(line, login_shell=login_shell).split(b"\n")[1] == b"/usr"


def test_the_bootstrap_holds_nothing_that_differs_between_shells() -> None:
    inner = BOOTSTRAP.split("'")
    assert len(inner) == 3, "one quoted part, without quotes inside"
    assert "!" not in BOOTSTRAP, "csh expands it even inside quotes"
    assert "\n" not in BOOTSTRAP


def test_a_missing_folder_and_a_missing_tool_are_told_apart() -> None:
    assert start(starting_line("MARK", ["true"], {}, "/no/such")).split()[:2] == [b"MARK", Word.NO_FOLDER.encode()]
    assert start(starting_line("MARK", ["no-such-tool"], {}, None)).split()[:2] == [b"MARK", Word.NO_TOOL.encode()]


@pytest.mark.parametrize("name", ["", "a b", "1a", "a=b", "a-b", "a;b", "ä", "a\n"])
def test_a_variable_that_no_shell_can_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        starting_line("MARK", ["true"], {name: "x"}, None)


def test_what_no_shell_can_pass_on_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        starting_line("MARK", ["echo", "a\0b"], {}, None)
    with pytest.raises(ValueError, match="empty"):
        starting_line("MARK", [], {}, None)


def test_a_signal_goes_to_the_process_or_to_its_group() -> None:
    assert "-7" not in signal_script("INT", 7, whole_group=False)
    assert "kill -KILL -7" in signal_script("KILL", 7, whole_group=True)


@pytest.mark.parametrize("marker", ["ours", "other"])
def test_only_a_remnant_of_our_own_is_stopped(marker: str) -> None:
    session = subprocess.Popen(["sh", "-c", BOOTSTRAP], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert session.stdin is not None
    assert session.stdout is not None
    session.stdin.write(starting_line("ours", ["sleep", "1006"], {}, None).encode())
    session.stdin.flush()
    session.stdout.readline()
    # The line is printed a moment before the shell becomes the command.
    while b"1006" not in subprocess.run(["cat", f"/proc/{session.pid}/cmdline"], capture_output=True).stdout:
        time.sleep(0.01)
    done = subprocess.run(["sh", "-c", remnant_script(marker, session.pid, 5, 5)], timeout=20)
    assert done.returncode == 0
    if marker == "other":
        assert session.poll() is None
        session.kill()
    session.wait(10)
    session.stdin.close()
    session.stdout.close()
