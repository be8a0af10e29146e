"""Questions to a person."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
from collections.abc import Iterator
from typing import IO, Any

import click
import pytest

from skyspan.cli import prompts


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[IO[str]]:
    """The keys of a terminal, which hands over a line at a time."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as stdin, os.fdopen(ours, "w", buffering=1) as typed:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield typed


@pytest.mark.parametrize(
    ("typed", "meant"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("what\ny\n", True)]
)
def test_only_yes_is_yes(keys: IO[str], typed: str, meant: bool) -> None:
    keys.write(typed)
    assert prompts.confirm("Go on?") is meant


def test_the_end_of_the_input_is_no_answer(keys: IO[str]) -> None:
    keys.write("\x04")
    keys.flush()
    with pytest.raises(click.Abort):
        prompts.confirm("Go on?")


def test_a_ctrl_c_just_before_the_answer_is_waited_for_ends_the_question(
    keys: IO[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the handler of an event loop about, which would not raise; and between the last instruction and the wait,
    where a signal ends no read: the wait itself is reached with the signal pending."""
    handler = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        real = select.select

        def late(*waiting: Any) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return real(*waiting)

        monkeypatch.setattr(select, "select", late)
        with pytest.raises(KeyboardInterrupt):
            prompts.confirm("Go on?")
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
