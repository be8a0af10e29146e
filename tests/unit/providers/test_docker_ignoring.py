"""What a `.dockerignore` leaves out: the rules of the docker command's matcher."""

from __future__ import annotations

import pytest

from skyspan.providers.dockerengine.ignoring import left_out


@pytest.mark.parametrize(
    ("text", "out", "stays"),
    [
        ("", [], ["a", ".git/x"]),
        ("# a\n\n  b  \n", ["b", "b/c/d"], ["a", "# a", "x/b"]),
        ("/a\n./b/\n", ["a", "b/c"], ["x/a"]),
        ("*.log\n", ["x.log"], ["sub/x.log", "xlog"]),
        ("*/*.log\n", ["sub/x.log"], ["x.log", "a/b/x.log"]),
        ("**/*.log\n", ["x.log", "a/x.log", "a/b/x.log"], ["x.log.txt"]),
        ("a/**\n", ["a/b", "a/b/c"], ["a", "b"]),
        ("a/**/z\n", ["a/z", "a/b/c/z", "a/z/y"], ["z", "a/bz"]),
        ("?x\n[ab]y\n", ["1x", "ay", "by"], ["x", "/x", "cy"]),
        ("a.b\na+\n", ["a.b", "a+"], ["axb", "aa"]),
        ("*\n!keep\n!dir/in\n", ["x", "dir/out", "dir/x/y"], ["keep", "keep/x", "dir/in"]),
        ("*.md\n!README*.md\nREADME-secret.md\n", ["x.md", "README-secret.md"], ["README.md"]),
        ("!a\na\n", ["a"], ["b"]),
        ("*\n", ["x"], ["own/File", ".dockerignore"]),
    ],
)
def test_the_last_line_that_matches_a_path_or_a_folder_above_it_decides(
    text: str, out: list[str], stays: list[str]
) -> None:
    decide = left_out(text, "own/File")
    assert [path for path in out if not decide(path)] == []
    assert [path for path in stays if decide(path)] == []


@pytest.mark.parametrize("text", ["!\n", "a[\n"])
def test_a_pattern_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="is no pattern"):
        left_out(text)
