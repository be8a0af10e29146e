"""Sealing: what is sealed opens for the same workspace and place only, and keys are made once."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyspan.model.error import SealError
from skyspan.model.secret import Secret
from skyspan.secrets.sealing import EnvelopeSealer

PLACE = "secrets|token|value"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_what_is_sealed_opens_in_another_process_of_the_same_home(home: Path) -> None:
    sealed = EnvelopeSealer(home).seal("team", PLACE, b"data")
    assert b"data" not in sealed
    assert EnvelopeSealer(home).open("team", PLACE, sealed) == b"data"


@given(data=st.binary(max_size=200), place=st.text(max_size=30))
def test_any_data_and_place_round_trip(tmp_path_factory: pytest.TempPathFactory, data: bytes, place: str) -> None:
    sealer = EnvelopeSealer(tmp_path_factory.getbasetemp() / "shared-home")
    assert sealer.open("w", place, sealer.seal("w", place, data)) == data


def test_the_same_data_never_looks_the_same(home: Path) -> None:
    sealer = EnvelopeSealer(home)
    assert sealer.seal("w", PLACE, b"data") != sealer.seal("w", PLACE, b"data")


def test_a_value_moved_to_another_place_is_refused(home: Path) -> None:
    sealer = EnvelopeSealer(home)
    sealed = sealer.seal("w", PLACE, b"data")
    with pytest.raises(SealError, match="damaged or was moved") as caught:
        sealer.open("w", "secrets|other|value", sealed)
    assert caught.value.hint


def test_a_value_moved_to_another_workspace_is_refused(home: Path) -> None:
    sealer = EnvelopeSealer(home)
    sealed = sealer.seal("one", PLACE, b"data")
    sealer.seal("two", PLACE, b"data")
    with pytest.raises(SealError, match="missing"):
        sealer.open("two", PLACE, sealed)


def test_damage_anywhere_is_refused(home: Path) -> None:
    sealer = EnvelopeSealer(home)
    sealed = sealer.seal("w", PLACE, b"data")
    for index in range(len(sealed)):
        broken = bytearray(sealed)
        broken[index] ^= 1
        with pytest.raises(SealError):
            sealer.open("w", PLACE, bytes(broken))
    for size in range(len(sealed)):
        with pytest.raises(SealError):
            sealer.open("w", PLACE, sealed[:size])


def test_opening_never_makes_keys(home: Path) -> None:
    sealed = EnvelopeSealer(home).seal("w", PLACE, b"data")
    (home / "keys" / "w").unlink()
    with pytest.raises(SealError, match="missing"):
        EnvelopeSealer(home).open("w", PLACE, sealed)
    assert not (home / "keys" / "w").exists()


def test_nothing_is_written_before_first_use(home: Path) -> None:
    EnvelopeSealer(home)
    assert not home.exists()


def test_key_files_are_private(home: Path) -> None:
    EnvelopeSealer(home).seal("w", PLACE, b"data")
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "keys" / "w").stat().st_mode) == 0o600
    assert sorted(path.name for path in home.rglob("*")) == ["key", "keys", "w"]


def test_a_key_file_that_others_may_read_is_refused(home: Path) -> None:
    EnvelopeSealer(home).seal("w", PLACE, b"data")
    (home / "key").chmod(0o644)
    with pytest.raises(SealError, match="0644") as caught:
        EnvelopeSealer(home).seal("w", PLACE, b"data")
    assert "chmod 600" in caught.value.hint


def test_a_home_that_lost_its_key_says_so_and_makes_no_second_one_for_old_values(home: Path) -> None:
    sealed = EnvelopeSealer(home).seal("w", PLACE, b"data")
    (home / "key").unlink()
    with pytest.raises(SealError, match="another master key") as caught:
        EnvelopeSealer(home).open("w", PLACE, sealed)
    assert "backup" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"skyspan-key-1 00 11\n", b"\xff\xfe", b"skyspan-key-9 " + b"00 " * 2])
def test_a_damaged_key_file_is_refused(home: Path, content: bytes) -> None:
    EnvelopeSealer(home).seal("w", PLACE, b"data")
    (home / "key").write_bytes(content)
    with pytest.raises(SealError, match="damaged"):
        EnvelopeSealer(home).unlock()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format": 1, "active": "x"}', b"null"])
def test_a_damaged_workspace_key_file_is_refused(home: Path, content: bytes) -> None:
    EnvelopeSealer(home).seal("w", PLACE, b"data")
    (home / "keys" / "w").write_bytes(content)
    with pytest.raises(SealError, match="damaged"):
        EnvelopeSealer(home).seal("w", PLACE, b"data")


def test_a_home_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SealError, match=r"cannot (read|write)") as caught:
        EnvelopeSealer(tmp_path / "file").seal("w", PLACE, b"data")
    assert caught.value.hint


@pytest.mark.parametrize("workspace", ["", "../x", "a/b", "A", ".."])
def test_a_workspace_name_never_leads_out_of_the_home(home: Path, workspace: str) -> None:
    with pytest.raises(SealError, match="no workspace name"):
        EnvelopeSealer(home).seal(workspace, PLACE, b"data")


def test_the_fingerprint_key_is_stable_and_the_workspaces_own(home: Path) -> None:
    key = EnvelopeSealer(home).fingerprint_key("w")
    assert len(key) == 32
    assert EnvelopeSealer(home).fingerprint_key("w") == key
    assert EnvelopeSealer(home).fingerprint_key("v") != key


def test_a_passphrase_locks_a_home(home: Path) -> None:
    right = Secret("correct horse")
    sealed = EnvelopeSealer(home, right).seal("w", PLACE, b"data")
    assert EnvelopeSealer(home, right).open("w", PLACE, sealed) == b"data"
    assert not (home / "key").exists()
    with pytest.raises(SealError, match="passphrase does not open"):
        EnvelopeSealer(home, Secret("wrong")).unlock()
    with pytest.raises(SealError, match="none was given"):
        EnvelopeSealer(home).unlock()
    (home / "passphrase").write_text("{}")
    with pytest.raises(SealError, match="damaged"):
        EnvelopeSealer(home, right).unlock()


def test_a_home_with_a_key_file_refuses_a_passphrase(home: Path) -> None:
    EnvelopeSealer(home).unlock()
    with pytest.raises(SealError, match="not with a passphrase"):
        EnvelopeSealer(home, Secret("x")).unlock()


_RACER = """
import sys
from pathlib import Path
from skyspan.secrets.sealing import EnvelopeSealer
sealer = EnvelopeSealer(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(sealer.seal("w", "place", b"data").hex())
"""


def test_processes_racing_on_first_use_end_with_one_key(home: Path) -> None:
    pipe = subprocess.PIPE
    racers = [
        subprocess.Popen([sys.executable, "-c", _RACER, home], stdin=pipe, stdout=pipe, text=True) for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        racer.stdout.readline()
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    sealed = [bytes.fromhex(racer.communicate(timeout=60)[0]) for racer in racers]
    reader = EnvelopeSealer(home)
    assert [reader.open("w", "place", item) for item in sealed] == [b"data"] * 4
