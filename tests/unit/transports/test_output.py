"""Kept output: whole up to the limit, then its last part."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skyspan.transports.output import KeptOutput


@given(pieces=st.lists(st.binary(max_size=12), max_size=30))
def test_the_last_part_is_kept_whatever_the_pieces(pieces: list[bytes]) -> None:
    kept = KeptOutput(limit=20)
    for piece in pieces:
        kept.add(piece)
    assert kept.whole() == b"".join(pieces)[-20:]
