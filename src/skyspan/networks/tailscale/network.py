"""A tailnet as a `contracts.network.NetworkProvider`: installed, joined, named; host by host, over SSH."""

from __future__ import annotations

from dataclasses import dataclass

from skyspan.contracts.context import StageContext
from skyspan.contracts.network import Installation, Membership, node_name
from skyspan.model.error import Retry, SpecError, StageError
from skyspan.model.secret import Secret
from skyspan.networks.tailscale import compare, hosts
from skyspan.networks.tailscale.errors import (
    AuthKeyMissingError,
    DaemonUnavailableError,
    InstallFailedError,
    NotJoinedError,
)
from skyspan.networks.tailscale.parse import Node, Survey
from skyspan.networks.tailscale.ready import legs_of
from skyspan.networks.tailscale.spec import TailscaleSpec

_ROUNDS = 4
"""Start the daemon, join, set what joining does not: more than that is going in a circle."""

_PAUSE_S = 0.3


def auth_key(spec: TailscaleSpec, ctx: StageContext) -> Secret:
    """The key, from the environment variable that the settings name; raises AuthKeyMissingError."""
    key = ctx.variables.get(spec.auth_key_env)
    if key is None:
        raise AuthKeyMissingError(
            f"a host has to join {spec.tailnet_domain}, and the environment variable {spec.auth_key_env} is not set",
            hint=f"make an auth key (or take one of your secret store) and run with {spec.auth_key_env} set to it",
        )
    ctx.report.conceal(key)
    return key


@dataclass(frozen=True, slots=True)
class Tailnet:
    """The tailnet that a stage's settings describe, as one attempt works on it."""

    spec: TailscaleSpec
    ctx: StageContext

    async def ensure_installed(self, host: str) -> Installation:
        """Have Tailscale on `host`, new enough. Raises UnsupportedOSError, NotInstalledError, InstallFailedError."""
        self._member(host)
        return await self.install(host, await hosts.survey(host, self.ctx))

    async def install(self, host: str, seen: Survey) -> Installation:
        """The same, for a host that was looked at already."""
        reason = compare.installs(self.spec, seen)
        if not reason:
            return Installation(seen.version)
        compare.refuse_install(self.spec, host, seen)
        self.ctx.report.line(f"install: tailscale on {host}, as {reason}")
        await hosts.install(self.spec, host, seen, self.ctx)
        seen = await hosts.survey(host, self.ctx)
        still = compare.installs(self.spec, seen)
        if still:
            raise InstallFailedError(
                f"tailscale was installed on {host}, but {still}",
                hint=f"does {self.spec.install.address} have a newer one for this system?",
                retry=Retry.NEVER,
            )
        return Installation(seen.version, changed=True)

    async def ensure_joined(self, host: str) -> Membership:
        """Have `host` in the tailnet with its tags; the key is read and sent only when it has to join. Raises the
        errors of `networks.tailscale.errors`, each of which says what it is."""
        member = self._member(host)
        return await self.join(member, await hosts.survey(host, self.ctx))

    async def join(self, member: compare.Member, seen: Survey) -> Membership:
        """The same, for a host that was looked at already."""
        compare.refuse_missing_tools(member, seen)
        changed = sent = False
        for _ in range(_ROUNDS):
            step = compare.move(member, seen, retag=self.spec.retag and not sent)
            if step is None:
                break
            if step.needs_key and sent:
                raise self._unlike(member, seen)
            key = auth_key(self.spec, self.ctx) if step.needs_key else None
            sent = sent or key is not None
            sends = ", sending the auth key" if key else ""
            self.ctx.report.line(f"apply: {step.action} on {member.host}{sends}")
            await hosts.change(self.spec, member, step, key, self.ctx)
            changed = True
            seen = await self._settled(member)
        else:
            raise NotJoinedError(f"{member.host} does not keep its tailnet settings: it is {seen.state}")
        self._expect_member(member, seen)
        node = seen.node or Node("")
        return Membership(node_name(member.host, member.domain), node.addresses, node.tags, changed)

    def node_fqdn(self, host: str) -> str:
        """`{host}.{tailnet_domain}` (pure). Raises SpecError for a host that is not of this stage."""
        if host not in self.spec.hosts:
            raise SpecError(f"host {host!r} is not in `hosts` of this tailnet")
        return node_name(host, self.spec.tailnet_domain)

    def _member(self, host: str) -> compare.Member:
        self.node_fqdn(host)
        found = compare.members_of(self.spec, self.ctx.hosts, str(self.ctx.address))
        return next(member for member in found if member.host == host)

    async def _settled(self, member: compare.Member) -> Survey:
        """What is there once the daemon has told its own state after a change."""
        until = self.ctx.clock.monotonic() + self.spec.ready_within
        while True:
            seen = await hosts.survey(member.host, self.ctx)
            settling = seen.node is not None and (
                seen.node.state in ("Starting", "NoState") or (seen.node.state == "Running" and not seen.node.name)
            )
            if not settling or self.ctx.clock.monotonic() + _PAUSE_S >= until:
                return seen
            await self.ctx.clock.sleep(_PAUSE_S)

    def _unlike(self, member: compare.Member, seen: Survey) -> StageError:
        """The error of a host that joined, and is not what was wanted."""
        leg = next((leg for leg in legs_of(member, seen) if not leg.ok), None)
        if leg is None:
            return NotJoinedError(f"{member.host} joined, and is {seen.state}")
        return leg.kind(f"{leg.name}: {leg.reason}", hint=leg.hint)

    def _expect_member(self, member: compare.Member, seen: Survey) -> None:
        if seen.node is None:
            raise DaemonUnavailableError(f"tailscaled does not answer on {member.host}", detail=seen.trouble)
        if not compare.is_member(member, seen):
            raise self._unlike(member, seen)
