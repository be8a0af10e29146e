"""Owns the masking of secrets in everything that children print, in a stream and field by field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from skyspan.model.secret import MASK, Secret
from skyspan.model.value import Value
from skyspan.secrets.encodings import variants

IDLE_PREFIX = 4
"""A held beginning of a secret shorter than this may be shown when a stream pauses; longer ones wait for the end."""

_MASK = MASK.encode()


class Redactor:
    """Knows a run's secrets and masks them. What is learnt holds at once, also for streams already open."""

    def __init__(self, warn: Callable[[str], None] | None = None) -> None:
        """`warn` is told once per secret that is too short to be masked."""
        self._warn = warn or (lambda _: None)
        self._learnt: set[Secret] = set()
        self._patterns: set[bytes] = set()
        self._matcher: _Matcher | None = None

    def learn(self, secret: Secret, name: str = "") -> None:
        """Mask `secret` from now on, in every form of `encodings.variants`. `name` only serves the warning."""
        if secret in self._learnt:
            return
        self._learnt.add(secret)
        forms = variants(secret.reveal())
        if not forms:
            if secret:
                label = f"secret {name}" if name else "a secret"
                self._warn(f"{label} is too short to be masked: it stays visible wherever a tool prints it")
            return
        self._patterns |= forms
        self._matcher = None

    def stream(self) -> RedactingStream:
        """A filter for one stream of output."""
        return RedactingStream(self.matcher)

    def text(self, text: str) -> str:
        """`text` with every known secret masked."""
        matcher = self.matcher()
        if matcher is None or not text:
            return text
        data = text.encode(errors="surrogatepass")
        ranges = matcher.ranges(data)
        return _masked(data, ranges).decode(errors="surrogatepass") if ranges else text

    def value(self, value: Value) -> Value:
        """`value` with every `Secret`, every text and number that shows one, and every such key masked."""
        if isinstance(value, Secret):
            return MASK
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(key): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            shown = json.dumps(value)
            return value if self.text(shown) == shown else MASK
        return value

    def matcher(self) -> _Matcher | None:
        """What finds the secrets known now; None while there are none."""
        if self._matcher is None and self._patterns:
            self._matcher = _Matcher(frozenset(self._patterns))
        return self._matcher


class RedactingStream:
    """Masks one stream of bytes whatever its split points, holding back only what may be the beginning of a secret."""

    def __init__(self, matcher: Callable[[], _Matcher | None]) -> None:
        self._find = matcher
        self._held = b""
        # The first `_settled` held bytes are already out, and `_masked` says whether what went out last was a mask.
        self._settled = 0
        self._masked = False

    def feed(self, data: bytes) -> bytes:
        """What may be shown after `data` arrived."""
        matcher = self._find()
        if matcher is None:
            return data
        if not data:
            return b""
        data = self._held + data
        return self._release(data, matcher.ranges(data), matcher.live_from(data))

    def idle(self) -> bytes:
        """What may be shown because the stream pauses: a held prefix of fewer than `IDLE_PREFIX` bytes.

        It stays remembered, so that the rest of a secret that goes on after the pause is still masked."""
        waiting = self._held[self._settled :]
        if not waiting or len(self._held) >= IDLE_PREFIX:
            return b""
        self._settled, self._masked = len(self._held), False
        return waiting

    def flush(self) -> bytes:
        """The rest, at the end of the stream."""
        matcher = self._find()
        data = self._held
        return self._release(data, matcher.ranges(data) if matcher else [], len(data))

    def _release(self, data: bytes, ranges: list[_Range], hold: int) -> bytes:
        """Show `data` before `hold`, masked by `ranges`, and keep the rest.

        A range that begins before `hold` is masked whole at once; the part of it that is kept counts as settled. A
        secret that overlaps or touches it joins the same mask, as it does when both arrive together."""
        out: list[bytes] = []
        at, masked = self._settled, self._masked
        for found in ranges:
            if found.start >= hold:
                break
            if found.end <= at:
                continue
            if found.start > at or not masked:
                out += [data[at : found.start], _MASK]
            at, masked = found.end, True
        if at < hold:
            out.append(data[at:hold])
            at, masked = hold, False
        self._held, self._settled, self._masked = data[hold:], at - hold, masked
        return b"".join(out)


@dataclass(frozen=True, slots=True)
class _Range:
    start: int
    end: int


class _Matcher:
    """An Aho-Corasick automaton over a fixed set of byte patterns, and the question it does not answer itself."""

    def __init__(self, patterns: frozenset[bytes]) -> None:
        import ahocorasick

        # The automaton works on text; latin-1 maps every byte to the character of the same number.
        self._automaton: Any = ahocorasick.Automaton()
        for pattern in patterns:
            self._automaton.add_word(pattern.decode("latin-1"), len(pattern))
        self._automaton.make_automaton()
        self._longest = max(map(len, patterns))
        self._heads = frozenset(pattern[:size] for pattern in patterns for size in range(1, IDLE_PREFIX + 1))
        ordered = sorted(patterns)
        self._complete = patterns - {shorter for shorter, longer in pairwise(ordered) if longer.startswith(shorter)}

    def ranges(self, data: bytes) -> list[_Range]:
        """Where `data` shows a pattern: finds that overlap or touch joined, in order."""
        joined: list[_Range] = []
        for last, length in self._automaton.iter(data.decode("latin-1")):
            start, end = last + 1 - length, last + 1
            # Finds come in order of their ends, longest first; one may swallow several before it.
            while joined and joined[-1].end >= start:
                start = min(start, joined.pop().start)
            joined.append(_Range(start, end))
        return joined

    def live_from(self, data: bytes) -> int:
        """Where the longest end of `data` starts that more bytes could make a pattern; else its length."""
        size = len(data)
        for start in range(max(0, size - self._longest + 1), size):
            if data[start : start + IDLE_PREFIX] in self._heads and self._grows(data[start:]):
                return start
        return size

    def _grows(self, end: bytes) -> bool:
        """Whether `end` is the beginning of a longer pattern."""
        return end not in self._complete and self._automaton.longest_prefix(end.decode("latin-1")) == len(end)


def _masked(data: bytes, ranges: list[_Range]) -> bytes:
    out: list[bytes] = []
    at = 0
    for found in ranges:
        out += [data[at : found.start], _MASK]
        at = found.end
    return b"".join([*out, data[at:]])
