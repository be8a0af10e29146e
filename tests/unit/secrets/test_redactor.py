"""The redactor: nothing leaks at any split, clean text passes unchanged and at once."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyspan.model.secret import MASK, Secret
from skyspan.secrets.encodings import variants
from skyspan.secrets.redactor import RedactingStream, Redactor

PASSWORD = "hunter2/&=\"'<> é+pass"
MASK_BYTES = MASK.encode()

ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "raw": str.encode,
    "base64": lambda text: base64.b64encode(text.encode()),
    "base64 after one byte": lambda text: base64.b64encode(b"x" + text.encode()),
    "base64 after two bytes": lambda text: base64.b64encode(b"xy" + text.encode()),
    "base64 inside": lambda text: base64.b64encode(b"user:" + text.encode() + b"@host"),
    "urlsafe base64": lambda text: base64.urlsafe_b64encode(b"user:" + text.encode()),
    "hexadecimal": lambda text: text.encode().hex().encode(),
    "upper hexadecimal": lambda text: text.encode().hex().upper().encode(),
    "URL": lambda text: quote(text).encode(),
    "URL component": lambda text: quote(text, safe="").encode(),
    "form": lambda text: quote_plus(text).encode(),
    "JSON": lambda text: json.dumps(text).encode(),
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False).encode(),
    "JSON in JSON": lambda text: json.dumps(json.dumps({"k": text})).encode(),
    "JSON of Go": lambda text: (
        json.dumps(text, ensure_ascii=False)
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
        .encode()
    ),
    "HTML": lambda text: html.escape(text).encode(),
    "shell": lambda text: ("'" + text.replace("'", "'\\''") + "'").encode(),
}


def redactor(*secrets: str) -> Redactor:
    made = Redactor()
    for secret in secrets:
        made.learn(Secret(secret))
    return made


def through(stream: RedactingStream, *pieces: bytes) -> bytes:
    return b"".join(map(stream.feed, pieces)) + stream.flush()


def leaked(secret: str, shown: bytes) -> list[bytes]:
    return [form for form in variants(secret) if form in shown]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_secret_is_masked_in_every_encoding_at_every_split(encoding: str) -> None:
    output = b"before " + ENCODINGS[encoding](PASSWORD) + b" after\n"
    made = redactor(PASSWORD)
    whole = through(made.stream(), output)
    assert MASK_BYTES in whole
    assert not leaked(PASSWORD, whole)
    assert whole.startswith(b"before ")
    assert whole.endswith(b" after\n")
    for split in range(len(output) + 1):
        assert through(made.stream(), output[:split], output[split:]) == whole
    assert through(made.stream(), *(output[i : i + 1] for i in range(len(output)))) == whole


@settings(max_examples=300, deadline=None)
@given(
    secrets=st.lists(st.text(alphabet="ab/+'\"\\\n é", min_size=1, max_size=12), min_size=1, max_size=4),
    parts=st.lists(st.one_of(st.integers(0, 3), st.text(alphabet="ab/+'\"\\\n é", max_size=8)), min_size=1, max_size=8),
    encoding=st.sampled_from(sorted(ENCODINGS)),
    splits=st.lists(st.integers(0, 400), max_size=5),
)
def test_no_split_changes_what_is_shown_and_nothing_leaks(
    secrets: list[str], parts: list[int | str], encoding: str, splits: list[int]
) -> None:
    made = redactor(*secrets)
    output = b"".join(
        ENCODINGS[encoding](secrets[part % len(secrets)]) if isinstance(part, int) else part.encode() for part in parts
    )
    whole = through(made.stream(), output)
    matcher = made.matcher()
    ranges = matcher.ranges(output) if matcher else []
    expected, at = b"", 0
    for found in ranges:
        expected += output[at : found.start] + MASK_BYTES
        at = found.end
    assert whole == expected + output[at:]
    edges = [0, *sorted(min(split, len(output)) for split in splits), len(output)]
    pieces = [output[start:end] for start, end in pairwise(edges)]
    assert through(made.stream(), *pieces) == whole
    assert through(made.stream(), *(output[i : i + 1] for i in range(len(output)))) == whole


@settings(max_examples=200, deadline=None)
@given(
    secret=st.text(min_size=6, max_size=300),
    encoding=st.sampled_from(sorted(ENCODINGS)),
    before=st.binary(max_size=20),
    after=st.binary(max_size=20),
)
def test_any_text_of_six_bytes_is_masked_in_any_surroundings(
    secret: str, encoding: str, before: bytes, after: bytes
) -> None:
    secret = secret.strip()
    if len(secret.encode(errors="ignore")) < 6 or secret.encode(errors="ignore").decode() != secret:
        return
    shown = through(redactor(secret).stream(), before + ENCODINGS[encoding](secret) + after)
    for form in variants(secret):
        assert form not in shown or form in MASK_BYTES


@given(data=st.lists(st.binary(max_size=40), max_size=6))
def test_clean_output_passes_unchanged(data: list[bytes]) -> None:
    stream = redactor("\U0001f511 correct horse battery staple").stream()
    clean = [piece.replace(b"\xf0", b"").replace(b"c", b"") for piece in data]
    assert through(stream, *clean) == b"".join(clean)


def test_clean_output_is_not_held_back() -> None:
    stream = redactor("s3cret-value").stream()
    assert stream.feed(b"a clean line\n") == b"a clean line\n"
    assert stream.feed(b"Password: ") == b"Password: "


def test_a_long_key_is_masked_line_by_line_and_holds_back_little() -> None:
    body = "\n".join(f"k{number:07d}" * 8 for number in range(40))
    key = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n"
    made = redactor(key)
    shown = through(made.stream(), key.encode())
    assert b"k0000001" not in shown
    assert shown.endswith(b"\n")
    indented = "\n".join("    " + line for line in key.splitlines()).encode()
    assert b"k00000" not in through(made.stream(), indented)
    stream = made.stream()
    prefix = body.splitlines()[0].encode()
    assert stream.feed(b"x" * 1000 + prefix[:60]) == b"x" * 1000


def test_armour_lines_alone_are_not_masked() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nAAAABBBBCCCC\n-----END PRIVATE KEY-----"
    assert redactor(key).text("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"


def test_a_key_inside_a_json_credential_is_masked_where_it_stands_alone() -> None:
    document = json.dumps({"type": "service_account", "private_key": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n"})
    made = redactor(document)
    assert made.text("MIIEvQIBADANBg") == MASK
    assert made.text("type is service_account") == "type is service_account"


def test_wrapped_base64_of_a_long_secret_is_masked() -> None:
    secret = "x1y2z3" * 60
    encoded = base64.encodebytes(secret.encode())
    shown = through(redactor(secret).stream(), encoded)
    assert not [line for line in encoded.splitlines()[:-1] if line in shown]


def test_overlapping_secrets_leave_nothing_of_either() -> None:
    made = redactor("abcdefgh", "efghijkl")
    output = b"<abcdefghijkl>"
    for split in range(len(output) + 1):
        assert through(made.stream(), output[:split], output[split:]) == b"<***>"


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    made = redactor("password", "password-and-more")
    output = b"<password-and-more> <password> <password-and->"
    for split in range(len(output) + 1):
        assert through(made.stream(), output[:split], output[split:]) == b"<***> <***> <***-and->"


def test_a_complete_secret_is_masked_at_once_when_no_longer_one_can_follow() -> None:
    assert redactor("s3cret-value").stream().feed(b"it is s3cret-value") == b"it is ***"


def test_a_short_prefix_is_shown_when_the_stream_pauses_and_the_rest_stays_masked() -> None:
    stream = redactor("s3cret-value").stream()
    assert stream.feed(b"ends in s3") == b"ends in "
    assert stream.idle() == b"s3"
    assert stream.idle() == b""
    assert stream.feed(b"cret-value!") + stream.flush() == b"***!"


def test_a_longer_prefix_waits_for_the_end_of_the_stream() -> None:
    stream = redactor("s3cret-value").stream()
    assert stream.feed(b"s3cret") == b""
    assert stream.idle() == b""
    assert stream.flush() == b"s3cret"


def test_after_a_pause_clean_output_is_neither_lost_nor_repeated() -> None:
    stream = redactor("s3cret-value").stream()
    shown = stream.feed(b"s3") + stream.idle() + stream.feed(b"cre") + stream.feed(b"am") + stream.flush()
    assert shown == b"s3cream"


def test_a_secret_learnt_while_output_flows_is_masked_from_then_on() -> None:
    made = Redactor()
    stream = made.stream()
    assert stream.feed(b"late-secret") == b"late-secret"
    made.learn(Secret("late-secret"))
    assert stream.feed(b" late-sec") == b" "
    made.learn(Secret("another-one"))
    assert stream.feed(b"ret another-one") == b"*** ***"


def test_a_short_secret_warns_once_and_is_not_masked() -> None:
    said: list[str] = []
    made = Redactor(said.append)
    made.learn(Secret("12345"), "pin")
    made.learn(Secret("12345"), "pin")
    made.learn(Secret(""))
    assert len(said) == 1
    assert "pin" in said[0]
    assert "12345" not in said[0]
    assert made.text("12345") == "12345"


def test_white_space_around_a_secret_is_not_part_of_its_mask() -> None:
    assert redactor("s3cret-value\n").text("a s3cret-value\nb") == "a ***\nb"


def test_values_are_masked_field_by_field() -> None:
    made = redactor("s3cret-value", "123456789")
    assert made.value(
        {"a": ["x s3cret-value", 123456789, True, None, 1.5], "s3cret-value": Secret("other"), "b": ("c",)}
    ) == {"a": ["x ***", MASK, True, None, 1.5], MASK: MASK, "b": ["c"]}


def test_text_that_is_not_utf8_passes() -> None:
    made = redactor("s3cret-value")
    assert made.text("lone \ud800 s3cret-value") == "lone \ud800 ***"
    made.learn(Secret("bad \udcff\ud800 one"))
    assert through(made.stream(), b"\xff\xfe s3cret-value") == b"\xff\xfe ***"
