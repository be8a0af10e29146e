"""What tests of several folders ask for by name.

A world with gateways is made for one test (`sites`) or for all of a module (`shared_…`), which then share its loop.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio
from tests.support.gateways import gateways

from skyspan.testing.gateway_world import GatewayWorld


def pytest_configure() -> None:
    """A shell that starts the tests in the background has them ignore SIGINT, and so everything that they start: a tool
    that is interrupted before it listens would go on. A handler, unlike that, is not inherited."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
async def sites() -> AsyncIterator[GatewayWorld]:
    """East and west with their gateways."""
    async with gateways() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_sites() -> AsyncIterator[GatewayWorld]:
    """The same for all tests of a module: each gives back what it found."""
    async with gateways() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_bare(shared_sites: GatewayWorld) -> dict[str, str]:
    """The state of the gateways before anything was done to them."""
    return await shared_sites.state()


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    # The processes of a world are waited for in the event loop that started them.
    for item in items:
        names = getattr(item, "fixturenames", ())
        if pytest_asyncio.is_async_test(item) and any(name.startswith("shared_") for name in names):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)
