"""Log lines that wait for the store: in their order, none lost, memory bounded."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from skyspan.app import backlog
from skyspan.app.backlog import Backlog


def size(texts: Iterable[str]) -> int:
    """How many bytes texts take in memory."""
    return sum(map(sys.getsizeof, texts))


@pytest.mark.parametrize("seed", range(20))
def test_every_line_comes_out_once_and_in_order_however_the_two_ends_take_turns(
    seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(backlog, "MEMORY_BYTES", chance.choice((1, 300, 5000)))
    lines = Backlog("run-1", tmp_path)
    put: list[tuple[str, int, str, float, str]] = []
    got: list[tuple[str, int, str, float, str]] = []

    def take() -> None:
        got.extend(
            (line.stage, line.attempt, line.stream, line.at, line.text) for block in lines.take() for line in block
        )

    for _ in range(200):
        if chance.random() < 0.7:
            source = (f"s{chance.randrange(3)}", chance.randint(1, 2), chance.choice(("out", "err")))
            texts = [chance.choice(("", "ä☃", "\ud800", "x" * 50, "\x85 \r")) for _ in range(chance.randint(1, 9))]
            lines.add(source, 1.0, texts)
            put += [(*source, 1.0, text) for text in texts]
        else:
            take()
    while lines:
        take()
    assert got == put, f"seed {seed}"
    assert not list(tmp_path.iterdir()), "the file has no name, so it is gone with its process"
    lines.clear()


def test_memory_holds_a_bounded_part_of_a_flood() -> None:
    lines = Backlog("run-1")
    most = 0
    for number in range(2000):
        lines.add(("app", 1, "out"), 0.0, [f"{number:06} {place:03} {'x' * 80}" for place in range(100)])
    most = max(most, size(text for block in lines._blocks for text in block.texts))
    count = 0
    while lines:
        blocks = lines.take()
        for block in blocks:
            for text in block.texts:
                assert text.startswith(f"{count // 100:06} {count % 100:03} ")
                count += 1
        most = max(most, size(text for block in blocks for text in block.texts))
    assert count == 200_000
    assert most < 2.5 * backlog.MEMORY_BYTES
    lines.clear()


def test_lines_for_which_there_is_no_room_anywhere_are_told(tmp_path: Path) -> None:
    lines = Backlog("run-1", tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        for _ in range(100):
            lines.add(("app", 1, "out"), 0.0, ["x" * 100_000])
    lines.clear()
    assert not lines
