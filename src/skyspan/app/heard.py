"""What the log of an attempt holds already, when another engine carries the attempt on and hears all of it again."""

from __future__ import annotations

from collections import deque

from skyspan.app.session import Session

_PAGE = 5000


class Heard:
    """Lines of one attempt that are in the log, per stream and in order. Each is recognised once."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[int]] = {}

    def add(self, stream: str, text: str) -> None:
        """A line is in the log."""
        self._lines.setdefault(stream, deque()).append(hash(text))

    def knows(self, stream: str, text: str) -> bool:
        """Whether this line, which comes now, is the next one that is in the log.

        What was said then and is not said again is passed over: a command says the same, a provider may not."""
        lines = self._lines.get(stream)
        mark = hash(text)
        if not lines or mark not in lines:
            return False
        while lines.popleft() != mark:
            pass
        return True


async def heard_before(session: Session, run_id: str, stage: str, attempt: int) -> Heard:
    """What the log holds of an attempt."""
    heard, after = Heard(), 0
    while lines := await session.store.log(run_id, stage, after, _PAGE):
        for line in lines:
            if line.attempt == attempt:
                heard.add(line.stream, line.text)
        after = lines[-1].seq
    return heard
