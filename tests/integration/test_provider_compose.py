"""The compose provider under the provider suite: real projects on a real daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.dockerhost import IMAGE, DockerHost

from skyspan.model.secret import Secret
from skyspan.providers.compose.provider import ComposeProvider
from skyspan.providers.compose.spec import ComposeSpec
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport

SECRET = Secret('pass "word"/+=&')


@pytest.mark.integration
class TestCompose(ProviderConformance):
    @pytest.fixture
    def case(self, tmp_path: Path, daemon: DockerHost, here: LocalTransport) -> ProviderCase:
        def spec(**settings: Any) -> ComposeSpec:
            web = {
                "image": IMAGE,
                "command": "true",
                "stop_grace_period": "0s",
                "network_mode": "none",
                "configs": [{"source": "settings", "target": "/etc/web.conf"}],
            }
            return ComposeSpec.model_validate(
                {
                    "engine": {"endpoint": daemon.endpoint},
                    "inline": {
                        "services": {"web": {**web, **settings}},
                        "configs": {"settings": {"content": "hello"}},
                    },
                    "variables": {"TOKEN": SECRET},
                    "pull": "never",
                    "oneshot": ["web"] if "healthcheck" not in settings else [],
                }
            )

        return ProviderCase(
            provider=ComposeProvider(),
            spec=spec(),
            changed=spec(environment={"MORE": "yes"}),
            secret_spec=spec(environment={"TOKEN": "${TOKEN}"}),
            failing_spec=spec(command="sh -c 'echo I saw $$TOKEN; exit 3'", environment={"TOKEN": "${TOKEN}"}),
            slow_spec=spec(command="sleep 1000", healthcheck={"test": ["CMD", "false"]}),
            world=ProviderWorld(tmp_path, {None: here}),
            snapshot=daemon.state,
        )
