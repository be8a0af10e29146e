"""How values become columns: places, texts, and what is sealed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue
from skyspan.store.codec import Codec, place, plain


class OpenSealer:
    """Seals nothing: shows what would be sealed, and for where."""

    def seal(self, workspace: str, where: str, data: bytes) -> bytes:
        return f"{workspace}!{where}!".encode() + data

    def open(self, workspace: str, where: str, sealed: bytes) -> bytes:
        return sealed.removeprefix(f"{workspace}!{where}!".encode())

    def fingerprint_key(self, workspace: str) -> bytes:
        return bytes(32)


CODEC = Codec(OpenSealer())

NAMES = st.lists(st.text(min_size=0, max_size=4), min_size=1, max_size=3).map(tuple)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.text().map(Secret)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@given(one=NAMES, other=NAMES)
def test_two_rows_never_share_a_place(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert (place("t", one, "c") == place("t", other, "c")) == (one == other)


def test_a_place_reads_as_table_row_and_column() -> None:
    assert (
        place("outputs", ("default", "hybrid", "cloud", "gw ip"), "value")
        == "outputs|default/hybrid/cloud/gw%20ip|value"
    )


@given(value=VALUES)
def test_a_sealed_value_comes_back_with_its_secrets(value: object) -> None:
    assert CODEC.open("w", "here", CODEC.seal("w", "here", value)) == value


@given(text=st.text() | st.text(st.characters(categories=("Cs", "Cc"))))
def test_any_text_becomes_one_that_every_database_accepts(text: str) -> None:
    stored = plain(text)
    assert "\0" not in stored
    assert stored.encode().decode() == stored


def test_ordinary_text_stays_as_it_is() -> None:
    assert plain("ünï ☃ 🚀\n") == "ünï ☃ 🚀\n"


def test_only_what_is_neither_sensitive_nor_secret_is_stored_in_clear() -> None:
    clear = CODEC.output_columns("w", "here", OutputValue({"a": [1]}))
    assert clear == {"value": '{"a":[1]}', "value_sealed": None}
    for output in (OutputValue("x", sensitive=True), OutputValue({"a": [Secret("x")]})):
        columns = CODEC.output_columns("w", "here", output)
        assert columns["value"] is None
        assert columns["value_sealed"].startswith(b"w!here!")
