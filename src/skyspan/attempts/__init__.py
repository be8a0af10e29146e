"""One attempt at one stage: what each verb does to it."""

from skyspan.attempts.contexts import ContextFactory, ContextRequest, Contexts, SourceDigests
from skyspan.attempts.knowledge import Knowledge, Means, Wish
from skyspan.attempts.performer import StagePerformer

__all__ = [
    "ContextFactory",
    "ContextRequest",
    "Contexts",
    "Knowledge",
    "Means",
    "SourceDigests",
    "StagePerformer",
    "Wish",
]
