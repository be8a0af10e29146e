"""Whether a failed attempt is followed by another, and when."""

from __future__ import annotations

from collections.abc import Mapping

from skyspan.model.error import Retry
from skyspan.model.event import StageOutline

LONGEST_PAUSE_S = 60.0
"""However often a pause was doubled, it is never longer."""


def pause_before_next(outline: StageOutline, attempt: int, error: Mapping[str, str]) -> float | None:
    """Seconds to wait after `attempt` failed with `error` (`StageError.record()`), or None to give up.

    `now` does not wait; `later` waits the stage's backoff, doubled with each attempt; `never` gives up, unless the
    stage wants every failure retried. The number of attempts is a limit for all of them.
    """
    if attempt >= outline.attempts:
        return None
    kind = Retry(error.get("retry", Retry.NEVER.value))
    if kind is Retry.NOW:
        return 0.0
    if kind is Retry.NEVER and not outline.retry_any:
        return None
    # 2**attempt leaves the range of a float long before 100 attempts times a long backoff would matter.
    doublings = min(attempt - 1, 16)
    return float(min(outline.backoff_s * 2**doublings, LONGEST_PAUSE_S))
