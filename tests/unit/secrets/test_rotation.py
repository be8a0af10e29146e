"""Replacing keys: killed at any step it goes on, old keys open nothing afterwards, and nobody has to be restarted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from skyspan.model.error import RefusedError, SealError
from skyspan.model.secret import Secret
from skyspan.secrets import master_key
from skyspan.secrets.keyring import read_record
from skyspan.secrets.locked import rotating
from skyspan.secrets.rotation import Rotation
from skyspan.secrets.sealing import EnvelopeSealer

PLACE = "secrets|w/token|value"
WORKSPACES = ("one", "two", "three")
OLD, NEW = Secret("correct horse"), Secret("battery staple")


class Killed(BaseException):
    """What stands for SIGKILL: nothing catches it, nothing is tidied up."""


def killing(at: int) -> tuple[Callable[[str], None], list[str]]:
    """A step that dies at the `at`-th call, and the names of those so far."""
    seen: list[str] = []

    def step(name: str) -> None:
        seen.append(name)
        if len(seen) == at:
            raise Killed

    return step, seen


def filled(home: Path, passphrase: Secret | None = None) -> dict[str, bytes]:
    sealer = EnvelopeSealer(home, passphrase)
    return {name: sealer.seal(name, PLACE, name.encode()) for name in WORKSPACES}


def opens_all(home: Path, passphrase: Secret | None, sealed: dict[str, bytes]) -> bool:
    try:
        sealer = EnvelopeSealer(home, passphrase)
        return all(sealer.open(name, PLACE, data) == name.encode() for name, data in sealed.items())
    except SealError:
        return False


@pytest.fixture(autouse=True)
def _cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of keys are derived here. How dear that is stands in the record of each, so all else is as ever."""
    monkeypatch.setattr(master_key, "_OPERATIONS", 1)
    monkeypatch.setattr(master_key, "_MEMORY_BYTES", 8 * 1024)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


CHANGES = {
    "key file to key file": (None, None),
    "key file to passphrase": (None, NEW),
    "passphrase to passphrase": (OLD, NEW),
    "passphrase to key file": (OLD, None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_new_master_key_opens_everything_and_the_old_one_nothing(home: Path, change: str) -> None:
    before, after = CHANGES[change]
    sealed = filled(home, before)
    old_files = {name: (home / name).read_bytes() for name in ("key", "passphrase") if (home / name).exists()}
    running = EnvelopeSealer(home, before)
    running.open("one", PLACE, sealed["one"])
    assert Rotation(home, before).master(after) is True
    assert opens_all(home, after, sealed)
    assert {path.name for path in home.iterdir()} == {"key" if after is None else "passphrase", "keys"}
    # A process that knew the data keys goes on without a restart.
    assert running.open("one", PLACE, running.seal("one", PLACE, b"more")) == b"more"
    for name in ("key", "passphrase"):
        (home / name).unlink(missing_ok=True)
    for name, content in old_files.items():
        (home / name).write_bytes(content)
        (home / name).chmod(0o600)
    assert not opens_all(home, before, sealed)


@pytest.mark.parametrize("change", CHANGES)
def test_a_replacement_of_the_master_key_killed_at_any_step_goes_on(tmp_path: Path, change: str) -> None:
    before, after = CHANGES[change]
    steps, at = 1, 0
    while at < steps:
        at += 1
        home = tmp_path / str(at)
        sealed = filled(home, before)
        step, seen = killing(at)
        try:
            Rotation(home, before, step).master(after)
            break
        except Killed:
            steps = at + 1
        decided = "decided" in seen
        assert opens_all(home, after if decided else before, sealed), seen
        # Whoever comes now gives the passphrase that is valid now.
        resumed = Rotation(home, after if decided else before)
        interrupted = resumed.interrupted()
        fresh = resumed.master(after)
        assert fresh is not (decided and interrupted), seen
        assert opens_all(home, after, sealed), seen
        assert not resumed.interrupted()
        files = {"key" if after is None else "passphrase", "keys"}
        assert {path.name for path in home.iterdir()} == files, seen
        for name in WORKSPACES:
            content = (home / "keys" / name).read_bytes()
            assert len(read_record(name, home / "keys" / name, content).masters) == 1
    assert at > 2 * len(WORKSPACES), "every file was written twice"


def test_a_workspace_that_appears_during_an_interrupted_replacement_is_taken_along(home: Path) -> None:
    sealed = filled(home)
    step, _ = killing(2)
    with pytest.raises(Killed):
        Rotation(home, None, step).master(None)
    sealed["late"] = EnvelopeSealer(home).seal("late", PLACE, b"late")
    Rotation(home, None).master(None)
    assert opens_all(home, None, sealed)


def test_a_wrong_passphrase_writes_nothing_under_a_wrong_key(home: Path) -> None:
    filled(home, OLD)
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    wrong = EnvelopeSealer(home, NEW)
    for attempt in (
        lambda: wrong.seal("one", PLACE, b"x"),
        lambda: wrong.seal("brand-new", PLACE, b"x"),
        lambda: wrong.current("one"),
        lambda: Rotation(home, NEW).master(None),
        lambda: Rotation(home, NEW).begin_data("one"),
    ):
        with pytest.raises(SealError, match="does not open"):
            attempt()
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_a_new_data_key_seals_at_once_for_every_running_process(home: Path) -> None:
    running = EnvelopeSealer(home)
    old = running.seal("one", PLACE, b"old")
    rotation = Rotation(home, None)
    assert rotation.begin_data("one") is True
    new = running.seal("one", PLACE, b"new")
    assert new.startswith(running.current("one"))
    assert not old.startswith(running.current("one"))
    assert [running.open("one", PLACE, item) for item in (old, new)] == [b"old", b"new"]
    assert Rotation(home, None).begin_data("one") is False, "an interrupted one is gone on with"
    rotation.finish_data("one")
    for sealer in (running, EnvelopeSealer(home)):
        assert sealer.open("one", PLACE, new) == b"new"
    with pytest.raises(SealError, match="is missing"):
        EnvelopeSealer(home).open("one", PLACE, old)


def test_fingerprints_survive_both_rotations(home: Path) -> None:
    key = EnvelopeSealer(home).fingerprint_key("one")
    rotation = Rotation(home, None)
    rotation.begin_data("one")
    rotation.finish_data("one")
    rotation.master(None)
    assert EnvelopeSealer(home).fingerprint_key("one") == key


def test_two_rotations_at_once_are_refused_and_so_is_one_during_a_backup(home: Path) -> None:
    with rotating(home), pytest.raises(RefusedError, match="rotation or a backup"), rotating(home):
        pass
    with rotating(home, shared=True):
        with rotating(home, shared=True):
            pass
        with pytest.raises(RefusedError), rotating(home):
            pass


def test_a_workspace_without_keys_has_nothing_to_rotate(home: Path) -> None:
    with pytest.raises(SealError, match="no keys yet") as caught:
        Rotation(home, None).begin_data("one")
    assert caught.value.hint


def test_every_flipped_byte_of_200_ciphertexts_is_seen(home: Path) -> None:
    import random

    chance = random.Random(7)
    sealer = EnvelopeSealer(home)
    missed = tried = 0
    for number in range(200):
        place = f"secrets|w/s{number}|value"
        sealed = sealer.seal("w", place, chance.randbytes(chance.randrange(1, 60)))
        for index in range(len(sealed)):
            broken = bytearray(sealed)
            broken[index] ^= 1 << chance.randrange(8)
            tried += 1
            try:
                sealer.open("w", place, bytes(broken))
                missed += 1
            except SealError:
                pass
        for size in range(len(sealed)):
            with pytest.raises(SealError):
                sealer.open("w", place, sealed[:size])
    assert tried > 200 * 50
    assert missed == 0


def test_every_swap_of_rows_and_workspaces_is_seen(home: Path) -> None:
    sealer = EnvelopeSealer(home)
    places = [f"{table}|w/{name}|value" for table in ("secrets", "kept") for name in "abcdefghij"]
    sealed = {(space, place): sealer.seal(space, place, b"x") for space in ("v", "w") for place in places}
    for (space, place), data in sealed.items():
        for other in sealed:
            if other == (space, place):
                assert sealer.open(space, place, data) == b"x"
                continue
            with pytest.raises(SealError):
                sealer.open(*other, data)
