"""Expressions: what they mean, what they refer to, and what is said about those that mean nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyspan.model.expression import (
    ExpressionError,
    Reference,
    evaluate,
    has_expression,
    parse,
    pluck,
    references,
    texts,
)
from skyspan.model.secret import Secret
from skyspan.model.value import Unknown


@dataclass(frozen=True)
class Names:
    """A scope of `v.NAME`; everything under `u` is unknown, everything else is missing."""

    values: dict[str, Any] = field(default_factory=dict)

    def lookup(self, reference: Reference) -> Any:
        if reference.root == "u":
            return Unknown(frozenset({str(reference)}))
        if reference.root != "v":
            msg = f"there is no {reference}"
            raise LookupError(msg)
        return pluck(self.values, reference.path, "v")


SCOPE = Names(
    {
        "n": 3,
        "s": "text",
        "t": True,
        "f": False,
        "none": None,
        "list": ["a", 2, True],
        "map": {"k": {"odd key": [10, 20]}},
        "key": Secret("hunter2"),
        "net": "10.20.0.0/16",
        "secret-net": Secret("10.20.0.0/16"),
        "name-with-dash": "dashed",
    }
)


def value_of(text: str) -> Any:
    return evaluate(text, SCOPE)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("${{ v.n }}", 3),
        ("${{v.n}}", 3),
        ("  ${{ v.n }}", "  3"),
        ("n=${{ v.n }}, t=${{ v.t }}", "n=3, t=true"),
        ("${{ v.list }}", ["a", 2, True]),
        ("${{ v.list[1] }}", 2),
        ("${{ v.map.k['odd key'][0] }}", 10),
        ("${{ v.name-with-dash }}", "dashed"),
        ("${{ 'it\\'s' }}", "it's"),
        ('${{ "a}}b" }}', "a}}b"),
        ("${{ -2.5 }}", -2.5),
        ("${{ null }}", None),
        ("$${{ v.n }}", "${{ v.n }}"),
        ("$${{ a }} and ${{ v.n }}", "${{ a }} and 3"),
        ("cost: $$5", "cost: $$5"),
        ("${ not } {{ one }}", "${ not } {{ one }}"),
        ("${{ join(v.list, '-') }}", "a-2-true"),
        ("${{ format('{}:{}', v.s, 80) }}", "text:80"),
        ("${{ cidrsubnet(v.net, 8, 3) }}", "10.20.3.0/24"),
        ("${{ cidrsubnet('2001:db8::/32', 16, 255) }}", "2001:db8:ff::/48"),
        ("${{ cidrhost(v.net, 10) }}", "10.20.0.10"),
        ("${{ cidrhost(v.net, -2) }}", "10.20.255.254"),
        ("${{ tojson(v.map) }}", '{"k":{"odd key":[10,20]}}'),
        ("${{ base64('ab') }}", "YWI="),
        ("${{ default(missing.x, 'fallback') }}", "fallback"),
        ("${{ default(v.none, 5) }}", 5),
        ("${{ default(v.n, 5) }}", 3),
        ("${{ default(v.map.nothing, default(missing.y, 1)) }}", 1),
        ("${{ v.n == 3 && !v.f }}", True),
        ("${{ v.n != 3 || v.t }}", True),
        ("${{ v.n > 2 && v.n <= 3 }}", True),
        ("${{ 'a' < 'b' }}", True),
        ("${{ v.n == '3' }}", False),
        ("${{ 1 == true }}", False),
        ("${{ 1 == 1.0 }}", True),
        ("${{ v.f && missing.x }}", False),
        ("${{ v.t || missing.x }}", True),
        ("${{ (v.t || v.f) && v.f }}", False),
        ("${{ v.list == v.list }}", True),
    ],
)
def test_an_expression_has_this_value(text: str, value: Any) -> None:
    assert value_of(text) == value
    assert type(value_of(text)) is type(value)


def test_nested_values_are_evaluated_in_place() -> None:
    raw = {"a": ["${{ v.n }}", {"b": "x${{ v.s }}"}], "c": 5, "d": None}
    assert value_of(raw) == {"a": [3, {"b": "xtext"}], "c": 5, "d": None}  # type: ignore[arg-type]


def test_unknowns_combine_into_one_that_names_every_reference() -> None:
    raw = {"a": "${{ u.x }}", "b": ["${{ v.n }}", "${{ join(u.list, u['s p']) }}-${{ u.x }}"], "c": "${{ !u.flag }}"}
    assert evaluate(raw, SCOPE) == Unknown(frozenset({"u.x", "u.list", "u['s p']", "u.flag"}))


@pytest.mark.parametrize(
    ("text", "waits"),
    [
        ("${{ u.a && u.b }}", {"u.a", "u.b"}),
        ("${{ u.a || missing.x }}", {"u.a"}),
        ("${{ v.t && u.b }}", {"u.b"}),
        ("${{ u.a == u.b }}", {"u.a", "u.b"}),
        ("${{ default(u.a, 5) }}", {"u.a"}),
        ("${{ default(missing.x, u.b) }}", {"u.b"}),
        ("x ${{ u.a }} ${{ u.b[0] }}", {"u.a", "u.b[0]"}),
    ],
)
def test_what_is_not_known_yet_stays_unknown(text: str, waits: set[str]) -> None:
    assert value_of(text) == Unknown(frozenset(waits))


@pytest.mark.parametrize(
    ("text", "clear"),
    [
        ("${{ v.key }}", "hunter2"),
        ("pw=${{ v.key }}", "pw=hunter2"),
        ("${{ format('{}@{}', v.key, v.s) }}", "hunter2@text"),
        ("${{ base64(v.key) }}", "aHVudGVyMg=="),
        ("${{ join(default(v.none, v.list), v.key) }}", "ahunter22hunter2true"),
        ("${{ cidrhost(v.secret-net, 1) }}", "10.20.0.1"),
        ("${{ default(missing.x, v.key) }}", "hunter2"),
    ],
)
def test_what_a_secret_takes_part_in_is_a_secret(text: str, clear: str) -> None:
    assert value_of(text) == Secret(clear)


def test_a_secret_can_be_compared_and_the_answer_is_no_secret() -> None:
    assert value_of("${{ v.key == 'hunter2' }}") is True
    assert value_of("${{ v.key != v.s }}") is True


def test_a_function_that_cannot_use_a_secret_does_not_show_it() -> None:
    with pytest.raises(ExpressionError, match="sensitive argument") as failed:
        value_of("${{ cidrhost(v.key, 1) }}")
    assert "hunter2" not in str(failed.value)


@pytest.mark.parametrize(
    ("text", "offset", "said"),
    [
        ("abc ${{ v.n", 4, "unterminated"),
        ("${{ v.n } }", 0, "unterminated"),
        ("${{ a ${{ b }}", 0, "unterminated"),
        ("${{ }}", 4, "empty"),
        ("x${{ v.n + 1 }}", 9, "unexpected '+'"),
        ("${{ 'abc }}", 4, "closing quote"),
        ("${{ nope(1) }}", 4, "unknown function"),
        ("${{ jion(a, b) }}", 4, "did you mean join()"),
        ("${{ join(a) }}", 4, "join(list, separator)"),
        ("${{ default(a) }}", 4, "default(value, fallback)"),
        ("${{ a. }}", 7, "a name after '.'"),
        ("${{ a.1 }}", 6, "a name after '.'"),
        ("${{ a[-1] }}", 6, "an index"),
        ("${{ a[b] }}", 6, "an index"),
        ("${{ (a }}", 7, "')'"),
        ("${{ a b }}", 6, "an operator"),
        ("${{ && a }}", 4, "a reference, a function or a value"),
        ("${{ a == b == c }}", 11, "an operator"),
        ("${{ __import__('os') }}", 4, "unknown function"),
        ("${{ " + "(" * 100 + "a" + ")" * 100 + " }}", 36, "nested deeper"),
        ("${{ " + "!" * 5000 + "a }}", 36, "nested deeper"),
        ("${{ " + "9" * 5000 + " }}", 4, "30 digits"),
    ],
)
def test_what_cannot_be_read_is_reported_where_it_stands(text: str, offset: int, said: str) -> None:
    with pytest.raises(ExpressionError) as failed:
        parse(text)
    assert said in failed.value.message
    assert failed.value.offset == offset


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x${{ v.list }}", "join() or tojson()"),
        ("x${{ v.none }}", "default()"),
        ("${{ !v.n }}", "true or false"),
        ("${{ v.n && v.t }}", "true or false"),
        ("${{ v.n < v.s }}", "two numbers or two texts"),
        ("${{ cidrsubnet('nonsense', 1, 1) }}", "network prefix"),
        ("${{ cidrsubnet(v.net, 17, 0) }}", "no room"),
        ("${{ cidrsubnet(v.net, 2, 4) }}", "0 to 3"),
        ("${{ cidrhost('10.0.0.0/30', 4) }}", "4 addresses"),
        ("${{ cidrhost(v.net, 1.5) }}", "whole number"),
        ("${{ format('{}', 1, 2) }}", "1 placeholders"),
        ("${{ join('abc', ',') }}", "a list first"),
    ],
)
def test_what_has_no_value_says_why(text: str, said: str) -> None:
    with pytest.raises(ExpressionError) as failed:
        value_of(text)
    assert said in failed.value.message


@pytest.mark.parametrize(
    "text", ["${{ missing.x }}", "${{ v.nothing }}", "${{ v.list[7] }}", "${{ v.n.deeper }}", "${{ v.s[0] }}"]
)
def test_a_reference_to_nothing_is_a_lookup_error_in_words(text: str) -> None:
    with pytest.raises(LookupError) as failed:
        value_of(text)
    assert not isinstance(failed.value, KeyError | IndexError)
    assert str(failed.value)


def test_python_attributes_are_out_of_reach() -> None:
    for text in ("${{ v.__class__ }}", "${{ v.s.upper }}", "${{ v.map.items }}"):
        with pytest.raises(LookupError):
            value_of(text)


def test_references_are_found_everywhere_once_and_in_order() -> None:
    raw = {
        "a": "${{ stages.x.outputs.y }} ${{ inputs.z }}",
        "b": ["${{ default(inputs.z, hosts.h.port) }}", "$${{ no }}"],
    }
    assert [str(found) for found in references(raw)] == ["stages.x.outputs.y", "inputs.z", "hosts.h.port"]


def test_a_read_inside_default_is_guarded_and_its_fallback_is_not() -> None:
    reads = parse("${{ default(a.b, c.d) }} ${{ e.f }}").reads()
    assert [(str(read.reference), read.guarded) for read in reads] == [("a.b", True), ("c.d", False), ("e.f", False)]


def test_only_what_opens_an_expression_is_one() -> None:
    assert has_expression({"a": [1, {"b": "x ${{ y }}"}]})
    assert not has_expression({"a": [1, {"b": "${y} {{ z }}"}], "c": None})
    assert list(texts({"a": ["x", "${{ y }}"]})) == [(("a", 1), "${{ y }}")]


STEPS = st.one_of(st.integers(0, 10**6), st.text(min_size=1, max_size=12))
ROOTS = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True).filter(
    lambda root: root not in ("true", "false", "null")
)


@given(ROOTS, st.lists(STEPS, max_size=4))
def test_a_reference_reads_back_as_it_is_written(root: str, path: list[str | int]) -> None:
    written = Reference(root, tuple(path))
    (read,) = parse("${{ " + str(written) + " }}").reads()
    assert read.reference == written


@given(st.text())
def test_a_text_without_expressions_is_left_alone(text: str) -> None:
    if "${{" not in text:
        assert value_of(text) == text
        assert parse(text).parts == (text,)


@given(st.text())
def test_any_text_survives_being_escaped(text: str) -> None:
    if not text.endswith("$"):
        assert value_of(f"{text.replace('${{', '').rstrip('$')}$${{{{ x }}}}").endswith("${{ x }}")


@given(st.text(alphabet="${} \t()[].,'\"!&|=<>abv01-\\", max_size=40))
def test_any_expression_has_a_value_or_fails_in_words(text: str) -> None:
    try:
        value_of("${{ " + text + " }}")
    except (ExpressionError, LookupError) as error:
        assert str(error)


@given(st.text(max_size=20))
def test_a_quoted_text_keeps_every_character(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    assert value_of('${{ "' + quoted + '" }}') == text
