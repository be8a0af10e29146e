"""Age files: only those they are for open them."""

from __future__ import annotations

from pathlib import Path

import pyrage
import pytest

from skyspan.model.error import SealError, UsageError
from skyspan.model.secret import Secret
from skyspan.secrets import age


def identity(path: Path) -> str:
    """An identity in a file; its recipient."""
    made = pyrage.x25519.Identity.generate()
    path.write_text(f"# made for a test\n{made}\n")
    return str(made.to_public())


def test_each_recipient_opens_it_and_nobody_else(tmp_path: Path) -> None:
    recipients = [identity(tmp_path / name) for name in "ab"]
    identity(tmp_path / "stranger")
    sealed = age.encrypt_to(recipients, b"data")
    assert not age.wants_passphrase(sealed)
    for name in "ab":
        assert age.decrypt(sealed, [tmp_path / "stranger", tmp_path / name], None) == b"data"
    with pytest.raises(SealError, match="cannot be opened") as caught:
        age.decrypt(sealed, [tmp_path / "stranger"], None)
    assert caught.value.hint
    with pytest.raises(SealError, match="identity"):
        age.decrypt(sealed, [], None)


def test_a_passphrase_opens_what_it_locked(tmp_path: Path) -> None:
    sealed = age.encrypt_with(Secret("correct horse"), b"data")
    assert age.wants_passphrase(sealed)
    assert age.decrypt(sealed, [], Secret("correct horse")) == b"data"
    with pytest.raises(SealError, match="cannot be opened"):
        age.decrypt(sealed, [], Secret("wrong"))
    with pytest.raises(SealError, match="locked with a passphrase"):
        age.decrypt(sealed, [], None)


@pytest.mark.parametrize("text", ["age1nonsense", "ssh-ed25519 AAAA", "bob"])
def test_what_is_no_recipient_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="no age recipient"):
        age.encrypt_to([text], b"data")


def test_damage_anywhere_is_refused(tmp_path: Path) -> None:
    sealed = age.encrypt_to([identity(tmp_path / "a")], b"data" * 50)
    for place in range(0, len(sealed), 7):
        broken = bytearray(sealed)
        broken[place] ^= 1
        with pytest.raises(SealError):
            age.decrypt(bytes(broken), [tmp_path / "a"], None)
    with pytest.raises(SealError):
        age.decrypt(b"", [tmp_path / "a"], None)


def test_a_file_that_holds_no_identity_is_a_usage_error(tmp_path: Path) -> None:
    sealed = age.encrypt_to([identity(tmp_path / "a")], b"data")
    (tmp_path / "odd").write_text("hello\n")
    with pytest.raises(UsageError, match="no age identity"):
        age.decrypt(sealed, [tmp_path / "odd"], None)
    with pytest.raises(UsageError, match="cannot read"):
        age.decrypt(sealed, [tmp_path / "absent"], None)
