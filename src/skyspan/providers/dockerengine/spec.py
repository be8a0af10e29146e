"""The settings that say which Docker daemon is meant."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, model_validator

from skyspan.contracts.provider import Spec
from skyspan.model.composition import Model, Seconds
from skyspan.model.secret import Secret
from skyspan.model.value import revealed


def _text(value: Any) -> Any:
    """Numbers and truth values as a shell would write them: YAML reads `[sleep, 1]` as a number."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


Text: TypeAlias = Annotated[str, BeforeValidator(_text)]
SecretText: TypeAlias = Annotated[str | Secret, BeforeValidator(_text)]

_ENDPOINT = re.compile(r"(unix:///[^\s]+|tcp://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5})")


class EngineSettings(Model):
    """A Docker daemon by its endpoint. Whoever may speak to it is as good as root on its machine: treat its keys so."""

    endpoint: str
    """`unix:///run/other.sock`, or `tcp://ADDRESS:2376` for a daemon that this machine asks over the network."""
    ca: str | Secret | None = None
    """Certificate of the authority that signed the daemon's certificate (PEM); with it, the connection is TLS."""
    certificate: str | Secret | None = None
    """Our own certificate (PEM), for a daemon that wants one."""
    key: Secret | None = None
    """Its private key (PEM); given to the docker command in a file that only we can read, for as long as it runs."""

    @model_validator(mode="after")
    def _whole(self) -> EngineSettings:
        if _ENDPOINT.fullmatch(self.endpoint) is None:
            msg = f"{self.endpoint!r} is no endpoint such as unix:///var/run/docker.sock or tcp://192.0.2.7:2376"
            raise ValueError(msg)
        given = [name for name in ("ca", "certificate", "key") if getattr(self, name) is not None]
        if given and not self.remote:
            msg = f"{', '.join(given)}: a socket of the machine itself speaks no TLS"
            raise ValueError(msg)
        if (self.certificate is None) != (self.key is None):
            msg = "`certificate` and `key` belong together"
            raise ValueError(msg)
        if self.certificate is not None and self.ca is None:
            msg = "without `ca` nobody knows whose daemon gets the certificate: give it too"
            raise ValueError(msg)
        return self

    @property
    def remote(self) -> bool:
        """Whether the daemon is asked over the network."""
        return self.endpoint.startswith("tcp:")

    @property
    def address(self) -> str:
        """The host of a remote endpoint, without port and brackets."""
        return self.endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")

    def files(self) -> dict[str, str]:
        """The TLS files by the docker command's option."""
        named = {"--tlscacert": self.ca, "--tlscert": self.certificate, "--tlskey": self.key}
        return {option: str(revealed(text)) for option, text in named.items() if text is not None}


class EngineSpec(Spec):
    """Base of the settings of stages that a Docker daemon carries out."""

    host: str | None = None
    """The host of the composition whose Docker it is, reached over SSH; default: this machine. The login must be root
    or a member of the group `docker` there."""
    engine: EngineSettings | None = None
    """Another daemon than the docker command there speaks to by itself."""
    ready_within: Seconds = 60.0
    """How long the containers have to be up, and healthy where they have a health check."""

    @model_validator(mode="after")
    def _one_place(self) -> EngineSpec:
        if self.host is not None and self.engine is not None and self.engine.remote:
            msg = "`host` and a `tcp://` endpoint are two places: give one of them (a host's own socket is `unix://…`)"
            raise ValueError(msg)
        return self
