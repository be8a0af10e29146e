"""The ssh-tunnel provider under the provider suite: a real sshd on loopback, and forwarders that are real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.sshd import Sshd, free_port
from tests.support.tunnel import Tunnel, echo

from skyspan.model.secret import Secret
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.mark.integration
class TestSshTunnel(ProviderConformance):
    @pytest.fixture
    async def case(self, tmp_path: Path, sshd: Sshd) -> AsyncIterator[ProviderCase]:
        tunnel = Tunnel(tmp_path, sshd)
        async with echo() as port:
            forwards: dict[str, Any] = tunnel.local("db", port)
            yield ProviderCase(
                provider=tunnel.provider,
                spec=tunnel.spec(forwards),
                changed=tunnel.spec(forwards | tunnel.remote("back", port)),
                slow_spec=tunnel.spec(tunnel.local("db", free_port()), ready_within=60),
                world=tunnel.world,
                snapshot=tunnel.state,
                secrets=(tunnel.host.key or Secret(""),),
            )
            await tunnel.close()
