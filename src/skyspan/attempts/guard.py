"""What may not be done: replacing or destroying what is protected, and going beyond an approved plan."""

from __future__ import annotations

from skyspan.attempts.work import Work
from skyspan.contracts.store import StageRecord
from skyspan.model.change import Action, Change
from skyspan.model.error import SpecError, StageError
from skyspan.model.value import digest
from skyspan.planning.plan import agrees

_HARSH = frozenset({Action.REPLACE, Action.DESTROY})


def refuse_if_protected(work: Work, change: Change) -> None:
    """Raise SpecError when the stage is not to be destroyed and the change would do so to it or to a part of it."""
    if not is_protected(work) or change.action is Action.NONE:
        return
    parts = [item for item in change.resources if item.action in _HARSH]
    if change.action not in _HARSH and not parts:
        return
    deed = change.action.value if change.action in _HARSH else "destroy or replace parts of"
    raise SpecError(
        f"stage {work.stage} has prevent_destroy, and this would {deed} what it made",
        detail="\n".join(f"{item.action} {item.address}" for item in parts),
        hint=f"undo the change that causes it, or take prevent_destroy off stage {work.stage}",
    )


def refuse_beyond_approval(work: Work, change: Change) -> None:
    """Raise StageError when there is a saved plan and the change goes beyond it."""
    approved = work.know.wish.approved
    if approved is None or change.action is Action.NONE:
        return
    planned = approved.get(work.stage, Change(Action.NONE))
    why = agrees(planned, change)
    if why is not None:
        raise StageError(
            f"stage {work.stage} is not applied: that would be something else than the saved plan",
            detail=why,
            hint="plan again with --out, review, and apply the new plan",
        )


def is_protected(work: Work) -> bool:
    """Whether the stage is protected: as the composition says where it declares the stage, else as recorded."""
    declared = work.know.declared(work.stage)
    if declared is not None:
        return declared.prevent_destroy
    return work.record is not None and work.record.prevent_destroy


def removal(record: StageRecord) -> Change:
    """The change of a stage that left the composition."""
    what = {"destroy": str(record.address), "applied": record.fingerprint}
    return Change(Action.DESTROY, "it is no longer in the composition", meaning=digest(what))
