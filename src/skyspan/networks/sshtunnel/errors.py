"""What can go wrong with a tunnel, each by a name of its own, made from what the forwarder and the host tell (pure)."""

from __future__ import annotations

from types import MappingProxyType

from skyspan.contracts.forwarding import Trouble, TroubleKind
from skyspan.contracts.watch import Cause
from skyspan.model.error import CredentialsError, HostKeyError, SpecError, StageError, UnreachableError


class PortTakenError(SpecError):
    """Something else listens where a forward should, on this machine."""


class PortForbiddenError(SpecError):
    """This user may not listen on that port."""


class NoSuchAddressError(SpecError):
    """The machine has no such address to listen on."""


class PortTakenOnHostError(UnreachableError):
    """Something else listens where a remote forward should, on the host; it may be a listener that a dead connection
    left behind, which goes with time."""


class BindRefusedError(SpecError):
    """The host's sshd refused to listen for us, though nothing else does."""


class GatewayPortsError(SpecError):
    """The host's sshd listens on other addresses than it was asked to."""


class ForwardingForbiddenError(SpecError):
    """The host's sshd has a rule against the forward."""


class TargetRefusedError(UnreachableError):
    """The far end of a forward refuses connections."""


class UnknownHostError(UnreachableError):
    """A name has no address."""


_ERRORS = MappingProxyType(
    {
        TroubleKind.PORT_TAKEN: PortTakenError,
        TroubleKind.PORT_FORBIDDEN: PortForbiddenError,
        TroubleKind.NO_SUCH_ADDRESS: NoSuchAddressError,
        TroubleKind.BIND_REFUSED: BindRefusedError,
        TroubleKind.PORT_TAKEN_THERE: PortTakenOnHostError,
        TroubleKind.GATEWAY_PORTS: GatewayPortsError,
        TroubleKind.TARGET_REFUSED: TargetRefusedError,
        TroubleKind.FORWARDING_FORBIDDEN: ForwardingForbiddenError,
        TroubleKind.HOST_KEY: HostKeyError,
        TroubleKind.CREDENTIALS: CredentialsError,
        TroubleKind.UNKNOWN_HOST: UnknownHostError,
        TroubleKind.UNREACHABLE: UnreachableError,
    }
)

_CAUSES = MappingProxyType(
    {
        TroubleKind.PORT_TAKEN: Cause.PORT_TAKEN,
        TroubleKind.PORT_TAKEN_THERE: Cause.PORT_TAKEN,
        TroubleKind.GATEWAY_PORTS: Cause.FORWARD_DROPPED,
        TroubleKind.TARGET_REFUSED: Cause.SERVICE_DOWN,
        TroubleKind.HOST_KEY: Cause.AUTHENTICATION,
        TroubleKind.CREDENTIALS: Cause.AUTHENTICATION,
        TroubleKind.FORWARDING_FORBIDDEN: Cause.FORWARD_DROPPED,
        TroubleKind.BIND_REFUSED: Cause.FORWARD_DROPPED,
        TroubleKind.UNKNOWN_HOST: Cause.STALE_ENDPOINT,
        TroubleKind.UNREACHABLE: Cause.UNREACHABLE,
    }
)


def error_of(trouble: Trouble) -> StageError:
    """The trouble as an error."""
    return _ERRORS[trouble.kind](trouble.summary, detail=trouble.detail, hint=trouble.hint)


def cause_of(trouble: Trouble) -> Cause:
    """The trouble as a cause."""
    return _CAUSES.get(trouble.kind, Cause.UNKNOWN)
