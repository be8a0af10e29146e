"""Known secrets leave a text in every shape that tools give them."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from skyspan.model.secret import Secret
from skyspan.providers.masking import holds_secret, mask_secrets

SECRET = Secret('pa"ss\\word/+= ü')


@pytest.mark.parametrize(
    "shape",
    [
        SECRET.reveal(),
        json.dumps(SECRET.reveal()),
        quote(SECRET.reveal(), safe=""),
        base64.b64encode(SECRET.reveal().encode()).decode(),
    ],
    ids=["raw", "json", "url", "base64"],
)
def test_a_secret_is_masked_in_every_shape(shape: str) -> None:
    masked = mask_secrets(f"before {shape} after", [SECRET])
    assert masked.replace('"', "") == "before *** after"
    assert holds_secret(f"x{shape}x", [SECRET])
    assert not holds_secret(masked, [SECRET])


def test_a_secret_of_several_lines_is_masked_line_by_line() -> None:
    key = Secret("-----BEGIN KEY-----\nMC4CAQAwBQYDK2VwBCIEIE\n--\n")
    assert mask_secrets("read MC4CAQAwBQYDK2VwBCIEIE -- ok", [key]) == "read *** -- ok"


def test_a_longer_secret_is_masked_before_one_that_it_holds() -> None:
    assert mask_secrets("abcdef abc", [Secret("abc"), Secret("abcdef")]) == "*** ***"


def test_an_empty_secret_hides_nothing() -> None:
    assert mask_secrets("text", [Secret("")]) == "text"
    assert not holds_secret("text", [Secret("")])
