"""What may be declared as an input's or output's type, and which values are of it."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyspan.model.secret import Secret
from skyspan.model.value_type import ValueType, conform, from_text, parse_type

WIREGUARD_KEY = base64.b64encode(bytes(range(32))).decode()
OPENSSH_KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode() + " me@here"

GOOD = [
    ("string", ""),
    ("string", "text"),
    ("number", 3),
    ("number", -2.5),
    ("bool", False),
    ("ip", "203.0.113.10"),
    ("ip", "2001:db8::1"),
    ("cidr", "10.0.0.0/16"),
    ("cidr", "2001:db8::/48"),
    ("cidr", "192.0.2.1/32"),
    ("endpoint", "203.0.113.10:51820"),
    ("endpoint", "gw.example.org:443"),
    ("endpoint", "[2001:db8::1]:51820"),
    ("url", "https://example.org/a?b=c"),
    ("url", "http://[2001:db8::1]:8080/"),
    ("port", 65535),
    ("public_key", WIREGUARD_KEY),
    ("public_key", OPENSSH_KEY),
    ("secret", "hunter2"),
    ("any", None),
    ("any", {"a": [1, None]}),
    ("list<ip>", ["192.0.2.1"]),
    ("list", [1, "a"]),
    ("map<list<number>>", {"a": [1, 2]}),
]

BAD = [
    ("string", 3, "got the number 3"),
    ("string", None, "got nothing (null)"),
    ("number", True, "got the bool true"),
    ("number", float("nan"), "expected a number"),
    ("number", "3", "expected a number"),
    ("bool", 1, "expected true or false"),
    ("ip", "203.0.113.300", "expected an IP address"),
    ("ip", "10.0.0.0/8", "expected an IP address"),
    ("cidr", "10.0.0.1/8", "without host bits (10.0.0.0/8)"),
    ("cidr", "10.0.0.1", "expected a network prefix"),
    ("cidr", "10.0.0.0/33", "expected a network prefix"),
    ("endpoint", "203.0.113.10", "expected HOST:PORT"),
    ("endpoint", "2001:db8::1:51820", "expected HOST:PORT"),
    ("endpoint", "gw:0", "expected HOST:PORT"),
    ("endpoint", "gw:99999", "expected HOST:PORT"),
    ("endpoint", "g w:80", "expected HOST:PORT"),
    ("endpoint", "[192.0.2.1]:80", "expected HOST:PORT"),
    ("url", "example.org", "expected a URL"),
    ("url", "http://example.org:port/", "expected a URL"),
    ("url", "http://exa mple.org", "expected a URL"),
    ("port", 0, "between 1 and 65535"),
    ("port", 80.5, "between 1 and 65535"),
    ("port", float("inf"), "between 1 and 65535"),
    ("port", True, "between 1 and 65535"),
    ("public_key", WIREGUARD_KEY[:-4], "WireGuard"),
    ("public_key", OPENSSH_KEY.replace("ssh-ed25519 ", "ssh-rsa "), "OpenSSH"),
    ("secret", 5, "expected a text"),
    ("list<ip>", ["192.0.2.1", "x"], "[1]: expected an IP address"),
    ("list<ip>", "192.0.2.1", "expected list<ip>"),
    ("map<number>", {"a": {"b": 1}}, ".a: expected a number"),
    ("map<map<number>>", {"a": {"b": "c"}}, ".a.b: expected a number"),
    ("map", {1: 2}, "text keys"),
]


@pytest.mark.parametrize(("kind", "value"), GOOD)
def test_a_value_of_its_type_comes_back_as_it_is(kind: str, value: object) -> None:
    assert conform(value, parse_type(kind)) == value


@pytest.mark.parametrize(("kind", "value", "said"), BAD)
def test_another_value_is_refused_with_what_was_expected(kind: str, value: object, said: str) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        conform(value, parse_type(kind))
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["", "strng", "list<", "list<>", "list<x>", "map<string", "String", "list<ip>x"])
def test_an_unknown_type_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="allowed are string, number"):
        parse_type(text)


def test_types_nest_only_so_deep() -> None:
    with pytest.raises(ValueError, match="nested deeper"):
        parse_type("list<" * 5000 + "any" + ">" * 5000)


def test_a_type_is_written_as_it_is_read() -> None:
    for text in ("string", "list<map<ip>>", "map<list<any>>"):
        assert str(parse_type(text)) == text
    assert parse_type(" list< ip > ") == ValueType("list", ValueType("ip"))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("string", "a"),
        ("ip", "192.0.2.1"),
        ("number", "42"),
        ("port", "443"),
        ("public_key", WIREGUARD_KEY),
        ("any", "x"),
    ],
)
def test_a_secret_is_judged_by_its_text_and_stays_one(kind: str, text: str) -> None:
    assert conform(Secret(text), parse_type(kind)) == Secret(text)


@pytest.mark.parametrize("kind", ["ip", "cidr", "port", "number", "public_key"])
def test_a_secret_of_another_type_is_refused_without_being_shown(kind: str) -> None:
    with pytest.raises(ValueError, match="expected type") as refused:
        conform(Secret("10.9.8.7/8"), parse_type(kind))
    assert "10." not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("number", "3", 3),
        ("number", "2.5", 2.5),
        ("port", "80", 80),
        ("bool", "TRUE", True),
        ("bool", "false", False),
        ("string", "3", "3"),
        ("string", "[1]", "[1]"),
        ("list<number>", "1,2, 3", [1, 2, 3]),
        ("list<string>", '["a,b", "c"]', ["a,b", "c"]),
        ("list<string>", "", []),
        ("map<number>", '{"a": 1}', {"a": 1}),
        ("any", '{"a": [1]}', {"a": [1]}),
        ("any", "plain", "plain"),
        ("secret", "s", Secret("s")),
    ],
)
def test_command_line_text_is_read_as_the_type_demands(kind: str, text: str, value: object) -> None:
    assert from_text(text, parse_type(kind)) == value


@pytest.mark.parametrize(
    ("kind", "text"), [("number", "x"), ("bool", "yes"), ("list<ip>", "a,b"), ("map", "a=b"), ("number", "NaN")]
)
def test_command_line_text_of_another_type_is_refused(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        from_text(text, parse_type(kind))


@given(st.text(), st.sampled_from(["ip", "cidr", "endpoint", "url", "port", "public_key", "bool", "list<ip>", "any"]))
def test_any_text_is_either_read_or_refused_with_words(text: str, kind: str) -> None:
    try:
        from_text(text, parse_type(kind))
    except ValueError as error:
        assert str(error)
