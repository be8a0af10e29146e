"""Reading the file: what is accepted, and every way a file can be wrong before it means anything."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skyspan.app.load import MAX_BYTES, find, load, load_checked
from skyspan.app.yaml_source import MAX_DEPTH, parse_yaml
from skyspan.contracts.provider import Spec
from skyspan.model.error import CompositionError, UsageError
from skyspan.model.expression import parse
from skyspan.providers.registry import Registry

GOOD = "skyspan: 1\nname: example\nstages:\n  a: {uses: command, with: {run: 'true'}}\n"


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "skyspan.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(folder: Path, content: str | bytes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(folder)
    write(folder, content)
    with pytest.raises(CompositionError) as failed:
        load_checked(folder)
    assert failed.value.exit_status == 2
    return [item.render() for item in failed.value.diagnostics]


def test_a_composition_is_loaded_with_its_folder_text_and_digest(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, GOOD))
    assert loaded.composition.name == "example"
    assert loaded.folder == tmp_path
    assert loaded.text == GOOD
    assert loaded.digest == hashlib.sha256(GOOD.encode()).hexdigest()
    assert loaded.raw["stages"]["a"]["uses"] == "command"


def test_a_folder_means_the_file_in_it(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    assert load(tmp_path).path == tmp_path / "skyspan.yaml"


def test_positions_point_at_keys_values_and_characters_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "skyspan: 1\nname: x\nstages:\n  a:\n    uses: command\n    with:\n"
    text += "      run: [one, 'it''s ${{ a }} ${{ b }}']\n"
    positions = load(write(tmp_path, text)).positions
    assert str(positions.key(("stages", "a", "uses"))) == "skyspan.yaml:5:5"
    assert str(positions.value(("stages", "a", "uses"))) == "skyspan.yaml:5:11"
    value = "it's ${{ a }} ${{ b }}"
    run = ("stages", "a", "with", "run", 1)
    assert str(positions.within(run, value, value.index("a }}"))) == "skyspan.yaml:7:29"
    assert str(positions.within(run, value, value.index("b }}"))) == "skyspan.yaml:7:38"
    assert str(positions.value(("stages", "a", "nothing", "here"))) == "skyspan.yaml:5:5"
    assert positions.excerpt(positions.key(("stages", "a"))) == "  a:"


def test_the_file_is_shown_relative_to_where_we_are_when_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", "skyspan: 2")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CompositionError, match=r"sub/skyspan\.yaml:1:10: error"):
        load(tmp_path / "sub")
    monkeypatch.chdir("/")
    with pytest.raises(CompositionError) as failed:
        load(tmp_path / "sub")
    assert str(tmp_path / "sub").lstrip("/") in str(failed.value)


def test_the_nearest_file_upward_is_found(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    path = write(tmp_path, GOOD)
    assert find(deep) == path.resolve()
    write(tmp_path / "a", GOOD)
    assert find(deep) == (tmp_path / "a" / "skyspan.yaml").resolve()
    with pytest.raises(UsageError, match=r"there is no skyspan\.yaml") as failed:
        find(Path("/"))
    assert "skyspan init" in failed.value.hint


def test_a_missing_file_or_folder_without_one_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match=r"there is no skyspan\.yaml in"):
        load(tmp_path)


def test_an_unreadable_file_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load(Path("/proc/self/mem"))


def test_a_ten_megabyte_file_is_refused_before_it_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (said,) = refused(tmp_path, GOOD + "#" * (10 * 1024 * 1024), monkeypatch)
    assert said.startswith("skyspan.yaml: error: the file is too large: 10.0 MiB, the limit is 4 MiB")


def test_a_file_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    assert load(write(tmp_path, GOOD + "#" * (MAX_BYTES - len(GOOD)))).composition.name == "example"


def test_windows_line_ends_and_a_byte_order_mark_are_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "\ufeff" + GOOD.replace("\n", "\r\n")
    loaded = load(write(tmp_path, content))
    assert loaded.composition.name == "example"
    assert loaded.digest == hashlib.sha256(content.encode()).hexdigest()
    (said,) = refused(tmp_path, content.replace("uses:", "usse:"), monkeypatch)[-1:]
    assert said.splitlines()[0] == "skyspan.yaml:4:7: error: unknown key 'usse' in stages.a"
    assert said.splitlines()[1] == "      a: {usse: command, with: {run: 'true'}}"


def test_an_expression_is_pointed_at_behind_windows_line_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = GOOD.replace("'true'", '"a ${{ inputs.gone }}"').replace("\n", "\r\n")
    (said,) = refused(tmp_path, text, monkeypatch)
    assert said.startswith("skyspan.yaml:4:41: error: there is no input 'gone'")


def test_what_is_not_utf8_is_pointed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (said,) = refused(tmp_path, "skyspan: 1\nname: é".encode() + b"\xfftail\n", monkeypatch)
    assert said.startswith("skyspan.yaml:2:8: error: the file is not UTF-8: byte 0xff at offset 19")


def test_utf16_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (said,) = refused(tmp_path, GOOD.encode("utf-16"), monkeypatch)
    assert said.startswith("skyspan.yaml:1:1: error: the file is not UTF-8")


def test_control_characters_are_pointed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (said,) = refused(tmp_path, GOOD + "x: \x01\n", monkeypatch)
    assert said.startswith("skyspan.yaml:5:4: error: not valid YAML: a control character")


def test_a_yaml_bomb_is_refused_in_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (said,) = refused(tmp_path, "\n".join(lines), monkeypatch)
    assert "more than 200000 values once aliases are expanded" in said


@pytest.mark.parametrize("bomb", ["a: " + "[" * 100_000, "- " * 100_000, "a: " + "{a: " * 100_000, "? " * 100_000])
def test_endless_nesting_is_refused_and_does_not_crash(
    bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (said,) = refused(tmp_path, bomb, monkeypatch)
    assert f"nested deeper than {MAX_DEPTH} levels" in said


def test_aliases_nest_no_deeper_than_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "x0: &x0 [1]\n" + "".join(f"x{n}: &x{n} [*x{n - 1}]\n" for n in range(1, 200))
    assert f"nested deeper than {MAX_DEPTH} levels" in refused(tmp_path, text, monkeypatch)[0]


def test_an_alias_inside_what_it_stands_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "an alias stands inside" in refused(tmp_path, GOOD + "description: &d [*d]\n", monkeypatch)[0]


def test_a_very_long_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused(tmp_path, GOOD + "description: " + "9" * 10_000, monkeypatch)
    assert "a number of more than 300 digits" in said[0]


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan"])
def test_what_json_cannot_hold_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is no number that can be used" in refused(tmp_path, GOOD + f"rehearsal: {text}\n", monkeypatch)[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-0", 0),
        ("+3", 3),
        ("007", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("NO", "NO"),
        ("on", "on"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("Null", None),
        ("2020-01-01", "2020-01-01"),
        ("10.0.0.0", "10.0.0.0"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 1", "1"),
        ("-", [None]),
        ("...x", "...x"),
        ("+", "+"),
    ],
)
def test_scalars_are_read_by_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    data, _, findings = parse_yaml(f"k: {text}" if text != "-" else "k:\n-", "f")
    assert not findings
    assert data["k"] == value
    assert type(data["k"]) is type(value)


def test_keys_are_texts_as_written(tmp_path: Path) -> None:
    data, _, findings = parse_yaml("1: a\non: b\n1.50: c\n~: d\n", "f")
    assert (data, findings) == ({"1": "a", "on": "b", "1.50": "c", "~": "d"}, ())


def test_parts_that_are_wrong_do_not_hide_what_else_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "skyspan: 1\nname: x\nhosts:\n  gw: {adress: 192.0.2.1}\nstages:\n"
        "  a: {uses: command, with: {run: 'true', host: gw}}\n"
        "  b: {uses: 5, with: {run: 'true'}}\n"
        '  c: {uses: command, needs: [b, d], with: {run: "${{ stages.b.outputs.x }} ${{ inputs.y }}"}}\n'
    )
    said = [line for item in refused(tmp_path, text, monkeypatch) for line in item.splitlines() if "error:" in line]
    assert said == [
        "skyspan.yaml:4:8: error: unknown key 'adress' in hosts.gw",
        "skyspan.yaml:7:13: error: stages.b.uses: expected a text (put quotes around it), got 5",
        "skyspan.yaml:8:33: error: there is no stage 'd'",
        "skyspan.yaml:8:80: error: there is no input 'y'",
    ]


def test_load_alone_reports_the_shape_and_nothing_more(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("'true'", '"${{ inputs.gone }}"'))
    assert load(path).composition.name == "example"


def test_the_pure_python_parser_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = GOOD + "description: &d 'x'\nrehearsal: [*d, 0o17, yes, {a: 1.5}]\n"
    fast = parse_yaml(text, "f")
    monkeypatch.setitem(sys.modules, "yaml._yaml", None)
    slow = parse_yaml(text, "f")
    assert slow[0] == fast[0] == {**fast[0], "rehearsal": ["x", 15, "yes", {"a": 1.5}]}
    assert slow[1].key(("stages", "a", "with")) == fast[1].key(("stages", "a", "with"))
    assert "nested deeper" in parse_yaml("[" * 5000, "f")[2][0].summary
    assert parse_yaml("a: \x01", "f")[2][0].where.column == 4


def test_settings_are_pointed_at_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class End(Spec):
        host: str
        prefixes: tuple[str, ...] = ()

    class Link(Spec):
        between: tuple[End, ...]

    monkeypatch.chdir(tmp_path)
    text = (
        GOOD + "  l:\n    uses: link\n    with:\n      between:\n        - {host: here, prefixs: ['${{ inputs.x }}']}\n"
    )
    write(tmp_path, text + "inputs: {x: {default: y}}\n")
    with pytest.raises(CompositionError) as failed:
        load_checked(tmp_path, lambda kind: Link if kind == "link" else Registry().spec_of(kind))
    (found,) = failed.value.diagnostics
    assert found.render().splitlines()[0] == (
        "skyspan.yaml:9:24: error: unknown key 'prefixs' in stages.l.with.between[0]"
    )
    assert found.hint == "did you mean prefixes?"


def chain(size: int) -> str:
    stages = [
        f"  s{n}:\n    uses: command\n    with: {{run: [echo, '${{{{ stages.s{max(n - 1, 0)}.outputs.v }}}}']}}\n"
        for n in range(1, size)
    ]
    return "skyspan: 1\nname: big\nstages:\n  s0: {uses: command, with: {run: 'true'}}\n" + "".join(stages)


def fan(size: int) -> str:
    reads = "".join(f"        - ${{{{ stages.s{n}.outputs.v }}}}\n" for n in range(size))
    stages = "".join(f"  s{n}: {{uses: command, with: {{run: 'true'}}}}\n" for n in range(size))
    head = "skyspan: 1\nname: big\nstages:\n  all:\n    uses: command\n    with:\n      run:\n        - echo\n"
    return head + reads + stages


@pytest.mark.parametrize("shape", [chain, fan])
def test_the_work_of_loading_and_checking_grows_no_faster_than_the_file(
    shape: Callable[[int], str], tmp_path: Path
) -> None:
    spec_of = Registry().spec_of

    def calls(size: int) -> int:
        write(tmp_path, shape(size))
        count = 0

        def counted(*_: object) -> None:
            nonlocal count
            count += 1

        parse.cache_clear()
        sys.setprofile(counted)
        try:
            _, checked = load_checked(tmp_path, spec_of)
        finally:
            sys.setprofile(None)
        assert len(checked.order) in (size, size + 1)
        return count

    calls(10)
    assert calls(400) < 4.2 * calls(100)


FUZZED = (Path(__file__).parents[2] / "golden" / "hybrid" / "skyspan.yaml").read_text(encoding="utf-8")
PIECES = (
    *("", " ", "\n", "  ", ":", "{", "}", "[", "]", "-", "'", '"', "a", "*x", "&x ", "null", "5", "- a\n"),
    *("${{", "}}", "stages.link.outputs.x", "hosts", "${{ secrets.k }}"),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.data())
def test_no_edit_of_a_file_ends_in_anything_but_a_diagnosis(tmp_path: Path, data: st.DataObject) -> None:
    text = FUZZED
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        length = data.draw(st.sampled_from([0, 0, 1, 2, 10]))
        piece = data.draw(st.sampled_from(PIECES))
        text = text[:start] + piece + text[start + length :]
    write(tmp_path, text)
    try:
        load_checked(tmp_path, Registry().spec_of)
    except CompositionError as error:
        assert error.diagnostics
        assert all(item.render() for item in error.diagnostics)
