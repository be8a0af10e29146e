"""The docker provider under the provider suite: real containers of a real daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.dockerhost import IMAGE, DockerHost

from skyspan.model.secret import Secret
from skyspan.providers.docker.provider import DockerProvider
from skyspan.providers.docker.spec import DockerSpec
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport

SECRET = Secret('pass "word"/+=&')


@pytest.mark.integration
class TestDocker(ProviderConformance):
    @pytest.fixture
    def case(self, tmp_path: Path, daemon: DockerHost, here: LocalTransport) -> ProviderCase:
        def spec(**settings: Any) -> DockerSpec:
            web = {
                "image": IMAGE,
                "command": "true",
                "oneshot": True,
                "stop_timeout": 0,
                "files": {"/etc/web.conf": {"content": "hello"}},
                "network_mode": "none",
            }
            return DockerSpec.model_validate(
                {
                    "engine": {"endpoint": daemon.endpoint},
                    "containers": {"web": {**web, **settings}},
                    "pull": "never",
                }
            )

        return ProviderCase(
            provider=DockerProvider(),
            spec=spec(),
            changed=spec(env={"MORE": "yes"}),
            secret_spec=spec(env={"TOKEN": SECRET}, files={"/run/token": {"content": SECRET}}),
            failing_spec=spec(command="sh -c 'echo I saw $TOKEN; exit 3'", env={"TOKEN": SECRET}),
            slow_spec=spec(command="sleep 1000", oneshot=False, healthcheck={"test": "false"}),
            world=ProviderWorld(tmp_path, {None: here}),
            snapshot=daemon.state,
        )
