"""The store's own thread: takes all queued work, does it in one transaction, and answers when that is durable."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from skyspan.model.error import StoreUnavailableError
from skyspan.store.database import Database, Transaction, WholeGroupError, Work

_GROUP = 256
"""The most calls that share a transaction: a bound on how long the first of them waits for the last."""

P = ParamSpec("P")
T = TypeVar("T")


class _Job:
    """One call: its work, and the future of the caller."""

    __slots__ = ("future", "loop", "problem", "result", "work", "writes")

    def __init__(self, work: Work, *, writes: bool) -> None:
        self.work = work
        self.writes = writes
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.result: Any = None
        self.problem: BaseException | None = None

    def settle(self) -> None:
        """Answer the caller, unless it was cancelled meanwhile; on the caller's loop."""
        if self.future.done():
            return
        if self.problem is not None:
            self.future.set_exception(self.problem)
        else:
            self.future.set_result(self.result)


class Worker:
    """Runs work on the database in the order of calls. Work is done even if its caller was cancelled meanwhile."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._waiting: list[_Job] = []

    async def read(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work`, which only reads."""
        result: T = await self._submit(_Job(functools.partial(_call, work, args, kwargs), writes=False))
        return result

    async def write(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work` once what it wrote is durable."""
        result: T = await self._submit(_Job(functools.partial(_call, work, args, kwargs), writes=True))
        return result

    def write_with_next(
        self, work: Callable[Concatenate[Transaction, P], None], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Do `work` together with the next call, before it; nobody waits for it alone."""
        job = _Job(functools.partial(_call, work, args, kwargs), writes=True)
        # Why it failed is told by the call that it went with: the same disk, the same lease.
        job.future.add_done_callback(lambda future: future.cancelled() or future.exception())
        with self._lock:
            self._waiting.append(job)

    async def close(self) -> None:
        """Finish what is queued and end the thread; later calls are refused. Never raises."""
        with self._lock:
            self._closed = True
            if self._thread is not None:
                self._send_waiting()
            thread = self._thread
        if thread is not None:
            self._queue.put(None)
            await asyncio.get_running_loop().run_in_executor(None, thread.join)

    def _submit(self, job: _Job) -> asyncio.Future[Any]:
        with self._lock:
            if self._closed:
                raise StoreUnavailableError(f"the store {self._database.where} was closed already")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="skyspan-store", daemon=True)
                self._thread.start()
            self._send_waiting()
            self._queue.put(job)
        return job.future

    def _send_waiting(self) -> None:
        for job in self._waiting:
            self._queue.put(job)
        self._waiting.clear()

    def _run(self) -> None:
        going = True
        while going:
            jobs, going = self._take()
            if jobs:
                self._perform(jobs)
                _answer(jobs)
        self._database.close()

    def _take(self) -> tuple[list[_Job], bool]:
        """All that is queued, waiting for the first; and whether more may come."""
        first = self._queue.get()
        if first is None:
            return [], False
        jobs = [first]
        with contextlib.suppress(queue.Empty):
            while len(jobs) < _GROUP:
                job = self._queue.get_nowait()
                if job is None:
                    return jobs, False
                jobs.append(job)
        return jobs, True

    def _perform(self, jobs: list[_Job]) -> None:
        """Do the jobs together; when one of them spoils it, do each alone, so that only that one fails."""
        try:
            results = self._database.transact([job.work for job in jobs], writes=any(job.writes for job in jobs))
        except WholeGroupError as failure:
            for job in jobs:
                job.problem = failure.problem
        except Exception as problem:
            if len(jobs) == 1:
                jobs[0].problem = problem
                return
            for job in jobs:
                self._perform([job])
        else:
            for job, result in zip(jobs, results, strict=True):
                job.result = result


def _call(work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], transaction: Transaction) -> Any:
    return work(transaction, *args, **kwargs)


def _answer(jobs: list[_Job]) -> None:
    """Wake each caller's loop once for all of its jobs."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, mine in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, mine)


def _settle(jobs: list[_Job]) -> None:
    for job in jobs:
        job.settle()
