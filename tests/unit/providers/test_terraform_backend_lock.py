"""Who holds a lock by the tools' own words, and when it is known to be one that a dead attempt of ours left."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skyspan.contracts.transport import Completed
from skyspan.model.error import CredentialsError, Retry, StateLockedError, ToolFailedError, UnreachableError
from skyspan.providers.terraform.backend_lock import BackendLock, is_left_by, said_lock, told_lock
from skyspan.providers.terraform.failure import Sources, failure
from skyspan.providers.terraform.holder import Holder, Machine
from skyspan.providers.terraform.journal import Journal
from skyspan.providers.terraform.parse import Diagnosis

# As the tools said it (OpenTofu 1.12.6, Terraform 1.11.4).
TOFU = """Error message: HTTP remote state already locked: ID=528c17a8-34ab
Lock Info:
  ID:        528c17a8-34ab
  Path:      
  Operation: OperationTypeApply
  Who:       root@vm
  Version:   1.12.6
  Created:   2026-11-21 15:55:40.145329569 +0000 UTC
  Info:      


OpenTofu acquires a state lock to protect the state from being written
"""  # noqa: W291
AT = 1_795_276_540.145329
TERRAFORM = TOFU.replace("  ID:        528c17a8-34ab", "  ID:        42c1c9fa-c2fa")
BOXED = "\n".join(f"│ {line}" for line in TOFU.splitlines())

MACHINE = Machine("vm", "b", "n", 0)
LEFT = Journal(holders=(Holder("x", MACHINE, since=AT - 1),), begun={"a.b": "x"}, at=AT + 1)
LOCK = BackendLock("1", "root@vm", "OperationTypeApply", AT)


@pytest.mark.parametrize("said", [TOFU, BOXED], ids=["plain", "boxed"])
def test_the_holder_is_read_from_what_a_tool_said(said: str) -> None:
    lock = said_lock(said)
    assert lock is not None
    assert (lock.id, lock.who, lock.operation) == ("528c17a8-34ab", "root@vm", "OperationTypeApply")
    assert lock.created == pytest.approx(AT)
    assert str(lock) == "root@vm since 2026-11-21 15:55:40 UTC (apply, lock 528c17a8-34ab)"


def test_terraforms_own_lock_is_not_taken_for_the_holders() -> None:
    lock = said_lock(TERRAFORM)
    assert lock == BackendLock("528c17a8-34ab")
    assert str(lock) == "somebody else (lock 528c17a8-34ab)"


def test_what_our_endpoint_wrote_about_the_holder_is_what_is_told() -> None:
    lock = told_lock(b'{"ID": "a", "Who": "root@vm", "Info": "attempt 1 of run r on vm"}')
    assert str(lock) == "attempt 1 of run r on vm"
    assert told_lock(b"nonsense") is told_lock(b"[]") is told_lock(b"{}") is None
    assert said_lock("no such host") is None


def test_only_a_lock_from_within_the_dead_attempts_time_on_its_machine_is_its_own() -> None:
    assert is_left_by(LOCK, LEFT)
    assert not is_left_by(replace(LOCK, created=AT - 2), LEFT), "taken before it began"
    assert not is_left_by(replace(LOCK, created=AT + 2), LEFT), "taken after its last message"
    assert not is_left_by(replace(LOCK, created=0.0), LEFT)
    assert not is_left_by(replace(LOCK, who="root@other"), LEFT)
    assert not is_left_by(replace(LOCK, who=""), LEFT)
    assert not is_left_by(LOCK, replace(LEFT, begun={})), "it is not known that it ever held the lock"
    assert not is_left_by(LOCK, Journal())
    silent = replace(LEFT, holders=(Holder("y", MACHINE, since=AT),), at=AT)
    assert not is_left_by(LOCK, silent), "the last attempt never said anything, so it may never have had the lock"
    assert not is_left_by(LOCK, replace(LEFT, holders=(Holder("x", MACHINE),))), "of an earlier Skyspan"


@pytest.mark.parametrize(
    ("detail", "kind", "retry"),
    [
        (TOFU, StateLockedError, Retry.LATER),
        (TERRAFORM, StateLockedError, Retry.LATER),
        ("connect: connection refused", UnreachableError, Retry.LATER),
        ("api error InvalidAccessKeyId", CredentialsError, Retry.NEVER),
        ("something else", ToolFailedError, Retry.LATER),
    ],
)
def test_a_lock_that_cannot_be_had_for_another_reason_is_not_called_held(detail: str, kind: type, retry: Retry) -> None:
    diagnosis = Diagnosis("error", "Error acquiring the state lock", detail)
    error = failure("tofu", "apply", Completed(1), [diagnosis], Sources("cloud", "/private"))
    assert (type(error), error.retry) == (kind, retry)
    if kind is StateLockedError:
        assert "tofu force-unlock 528c17a8-34ab" in error.hint
