"""When the link is ready: both tunnels carry traffic, and what is named in the cloud answers."""

from __future__ import annotations

from collections.abc import Sequence

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Command, Effect
from skyspan.model.error import CredentialsError, StageError
from skyspan.networks.awsvpn.spec import AwsVpnSpec
from skyspan.networks.ipsec.link import EndState
from skyspan.networks.ipsec.observation import Look
from skyspan.networks.ipsec.ready import expected
from skyspan.networks.ipsec.waiting import until_ready
from skyspan.networks.legs import Leg
from skyspan.networks.looking import all_of

PING_TIMEOUT_S = 3.0

FACTS = (
    "are the facts those of the aws_vpn_connection as it is now, and is `id` its customer gateway's `ip_address`? "
    "`skyspan up` reads them again"
)
"""What to do about a cloud that refuses the host."""

OPEN = "may the host send and receive UDP 500 and 4500, and does the aws_vpn_connection still exist?"
"""What to do about a cloud that does not answer."""


async def tunnels_ready(spec: AwsVpnSpec, looks: Sequence[Look], ctx: StageContext) -> tuple[Look, ...]:
    """Both at once; an error names its tunnel, that of a refused key first."""

    async def one(look: Look) -> Look | StageError:
        try:
            ready, _ = await until_ready(look, ctx)
        except StageError as error:
            return _named(error, look.ends[0])
        return ready

    found = await all_of(one(look) for look in looks)
    errors = [item for item in found if isinstance(item, StageError)]
    if errors:
        errors.sort(key=lambda error: not isinstance(error, CredentialsError))
        raise errors[0]
    return tuple(item for item in found if isinstance(item, Look))


def _named(error: StageError, end: EndState) -> StageError:
    hint = FACTS if isinstance(error, CredentialsError) else error.hint or OPEN
    words = f"{end.other} ({end.calls}): {error.summary}"
    return type(error)(words, detail=error.detail, hint=hint, retry=error.retry)


async def beyond(spec: AwsVpnSpec, ends: Sequence[EndState], ctx: ReadContext) -> tuple[Leg, ...]:
    """What is named in the cloud, through whichever tunnel carries."""
    legs = await expected(spec.expect, ends, ctx.places)
    if spec.ping is None:
        return legs
    answered = await ping(spec, ctx)
    name = f"ping from {spec.host} to {spec.ping}"
    hint = f"does {spec.ping} answer pings, by its security group too, and does its subnet route to the VPN gateway?"
    return (*legs, Leg(name) if answered else Leg(name, "no answer", hint))


async def ping(spec: AwsVpnSpec, ctx: ReadContext) -> bool:
    """Whether the named address answers one ping."""
    command = Command(
        ("ping", "-n", "-q", "-c", "1", "-W", "1", str(spec.ping)), timeout_s=PING_TIMEOUT_S, effect=Effect.READ
    )
    return (await ctx.places.reach(spec.host).query(command)).ok
