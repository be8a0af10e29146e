"""Virtual time passes exactly when everybody waits for it."""

from __future__ import annotations

import asyncio

from skyspan.testing.fake_clock import FakeClock


async def test_sleepers_wake_in_the_order_of_their_time_and_no_real_time_passes() -> None:
    clock, woken = FakeClock(), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    await asyncio.gather(*(sleeper(seconds) for seconds in (3600.0, 1.0, 60.0, 0.0)))
    assert woken == [(0.0, 0.0), (1.0, 1.0), (60.0, 60.0), (3600.0, 3600.0)]


async def test_time_stands_still_while_anything_is_left_to_do() -> None:
    clock = FakeClock()
    sleeping = asyncio.create_task(clock.sleep(5.0))
    for _ in range(1000):
        await asyncio.sleep(0)
        assert clock.monotonic() == 0.0
    await sleeping
    assert clock.monotonic() == 5.0


async def test_a_sleeper_that_was_cancelled_does_not_move_time() -> None:
    clock = FakeClock()
    sleeping = asyncio.create_task(clock.sleep(500.0))
    await asyncio.sleep(0)
    sleeping.cancel()
    await clock.sleep(1.0)
    assert clock.monotonic() == 1.0


async def test_time_can_be_moved_by_hand_and_the_wall_clock_turned() -> None:
    clock = FakeClock(start=100.0, jumps=False)
    sleeping = asyncio.create_task(clock.sleep(5.0))
    await asyncio.sleep(0)
    clock.advance(4.9)
    await asyncio.sleep(0)
    assert not sleeping.done()
    clock.advance(0.1)
    await sleeping
    clock.turn(-3600.0)
    assert (clock.now(), clock.monotonic()) == (100.0 + 5.0 - 3600.0, 5.0)
