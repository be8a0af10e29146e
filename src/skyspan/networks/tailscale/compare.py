"""What a member is to be, against what was seen of it, and the smallest step between the two: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from skyspan.contracts.host import Host
from skyspan.contracts.network import node_name
from skyspan.model.change import Action, ResourceChange
from skyspan.model.error import SpecError, ToolMissingError
from skyspan.networks.tailscale.commands import Move
from skyspan.networks.tailscale.errors import (
    ApprovalRequiredError,
    NotInstalledError,
    TagMismatchError,
    UnsupportedOSError,
    WrongTailnetError,
)
from skyspan.networks.tailscale.parse import DEFAULT_SERVER, Node, Prefs, Survey, server_of
from skyspan.networks.tailscale.spec import TailscaleSpec, version_numbers

SYSTEMS = ("debian", "ubuntu")
"""Systems that Tailscale is installed on, by the ID of /etc/os-release."""

TAILNET_ADDRESSES = (ip_network("100.64.0.0/10"), ip_network("fd7a:115c:a1e0::/48"))
"""Where a tailnet's addresses come from (tailscale, net/tsaddr)."""


@dataclass(frozen=True, slots=True)
class Member:
    """What a host is to be in the tailnet. `by_key` says that the auth key carries the tags; `inside` that the host is
    reached by an address or name of the tailnet."""

    host: str
    fqdn: str
    domain: str
    server: str
    tags: tuple[str, ...]
    routes: tuple[str, ...]
    accept_dns: bool
    accept_routes: bool
    by_key: bool
    inside: bool
    owner: str
    sudo: bool

    @property
    def families(self) -> tuple[int, ...]:
        """The address families that it forwards."""
        return tuple(sorted({ip_network(route).version for route in self.routes}))


def members_of(spec: TailscaleSpec, hosts: Mapping[str, Host], owner: str) -> tuple[Member, ...]:
    """Every host's; raises SpecError for one that the composition does not have."""
    missing = [name for name in spec.hosts if name not in hosts]
    if missing:
        raise SpecError(f"there is no host {missing[0]!r}", hint=f"hosts: {', '.join(sorted(hosts)) or 'none'}")
    return tuple(_member(spec, hosts[name], owner) for name in spec.hosts)


def _member(spec: TailscaleSpec, host: Host, owner: str) -> Member:
    return Member(
        host=host.name,
        fqdn=node_name(host.name, spec.tailnet_domain),
        domain=spec.tailnet_domain,
        server=server_of(spec.login_server or ""),
        tags=spec.tags_of(host.roles),
        routes=tuple(sorted(spec.advertise_routes.get(host.name, ()))),
        accept_dns=spec.accept_dns,
        accept_routes=spec.accept_routes,
        by_key=spec.tags_by_key,
        inside=_inside(host.address, spec.tailnet_domain),
        owner=owner,
        sudo=host.user != "root",
    )


def _inside(address: str, domain: str) -> bool:
    try:
        return any(ip_address(address) in network for network in TAILNET_ADDRESSES)
    except ValueError:
        return address.removesuffix(".").endswith(f".{domain}")


def refuse_from_inside(member: Member, what: str) -> None:
    """Raise SpecError when doing `what` would cut the very connection it is done over."""
    if member.inside:
        raise SpecError(
            f"{what} {member.host} is refused: it is reached over the tailnet itself",
            hint=f"give host {member.host} an `address` outside the tailnet for this",
        )


def is_ours(member: Member, seen: Survey) -> bool:
    """Whether this stage has joined the host."""
    return seen.owner == member.owner and "joined" in seen.marks


def is_member(member: Member, seen: Survey) -> bool:
    """Whether the host is up in the wanted tailnet, whoever joined it."""
    node = seen.node
    if node is None or node.state != "Running" or node.expired:
        return False
    return not _elsewhere(member, node, seen.prefs)


def installs(spec: TailscaleSpec, seen: Survey) -> str:
    """Why Tailscale must be installed; empty when it is there and new enough."""
    if not seen.installed:
        return "it is not installed"
    oldest = spec.install.min_version
    if oldest is not None and version_numbers(seen.version) < version_numbers(oldest):
        return f"it is {seen.version}, and {oldest} is the oldest that will do"
    return ""


def refuse_install(spec: TailscaleSpec, host: str, seen: Survey) -> None:
    """Raise StageError when Tailscale should be installed and cannot be; nothing was touched yet."""
    reason = installs(spec, seen)
    if not reason:
        return
    if spec.install.method == "none":
        raise NotInstalledError(
            f"tailscale on {host}: {reason}, and `install.method` is none",
            hint="install it there, or let `install: {method: package}` do it",
        )
    if seen.system[0] not in SYSTEMS or not seen.tools.get("apt-get"):
        raise UnsupportedOSError(
            f"tailscale cannot be installed on {host}: it runs {seen.system[0]}",
            detail=reason,
            hint=f"install it there by hand and set `install: {{method: none}}`; known are {', '.join(SYSTEMS)}",
        )
    if spec.install.method == "package" and seen.system[1] == "-":
        raise UnsupportedOSError(
            f"tailscale cannot be installed on {host}: its release has no codename",
            hint="set `install: {method: script}`, or install it by hand and set `method: none`",
        )


def refuse_missing_tools(member: Member, seen: Survey) -> None:
    """Raise ToolMissingError for what the scripts need on the host."""
    for tool in ("flock", "timeout"):
        if not seen.tools.get(tool):
            raise ToolMissingError(f"{member.host} has no {tool}", hint="apt-get install util-linux coreutils")


def move(member: Member, seen: Survey, *, retag: bool = False) -> Move | None:
    """The smallest step that makes the host what it is to be; None when it is.

    Raises StageError for a membership that is not ours to change. A daemon that does not answer is only started: then
    look again.
    """
    node = seen.node
    if node is None:
        # Whether it is a member can only be told once it runs.
        return Move("set") if seen.installed else _join(member, seen)
    if node.state == "NeedsMachineAuth":
        raise ApprovalRequiredError(
            f"{member.host} waits for an administrator's approval",
            hint="approve it in the admin console (or use a pre-approved key), and bring it up again",
        )
    if not node.has_key:
        return _join(member, seen)
    if _elsewhere(member, node, seen.prefs):
        if not is_ours(member, seen):
            raise _foreign(member, node, seen.prefs)
        refuse_from_inside(member, "moving to another tailnet")
        return _join(member, seen, again=True)
    if node.state == "NeedsLogin" or node.expired:
        return _join(member, seen, again=True)
    if node.state == "Running" and _mistagged(member, node):
        if not (retag and is_ours(member, seen)):
            raise tag_mismatch(member, node)
        refuse_from_inside(member, "retagging")
        return _join(member, seen, again=True)
    flags = tuple(_flags(member, seen.prefs))
    if node.state == "Stopped":
        return Move("raise", flags, _prior(member, seen), member.families)
    if node.state == "Running" and not seen.led:
        return Move("restart", flags, _prior(member, seen), member.families)
    forwards = all(seen.forwarding.get(family, True) for family in member.families)
    return _set(member, seen) if flags or not forwards else None


def tag_mismatch(member: Member, node: Node) -> TagMismatchError:
    """The error of a member with other tags than wanted."""
    source = (
        "make an auth key that carries the wanted tags"
        if member.by_key
        else "let the policy's tagOwners allow the wanted tags"
    )
    return TagMismatchError(
        f"{member.host} has the tags {_listed(node.tags)}, wanted are {_listed(member.tags)}",
        hint=f"{source} and set `retag: true`, or correct `default_tags` and `role_tags`",
    )


def _listed(tags: tuple[str, ...]) -> str:
    return ", ".join(tags) or "none"


def _mistagged(member: Member, node: Node) -> bool:
    """Without any tag wanted, those that a key carries are as good as none."""
    return node.tags != member.tags and bool(member.tags or not member.by_key)


def _elsewhere(member: Member, node: Node, prefs: Prefs) -> bool:
    if prefs.server != member.server:
        return True
    return node.state == "Running" and bool(node.suffix) and node.suffix != member.domain


def _foreign(member: Member, node: Node, prefs: Prefs) -> WrongTailnetError:
    where = node.suffix or "a tailnet"
    server = "" if prefs.server == DEFAULT_SERVER else f" at {prefs.server}"
    return WrongTailnetError(
        f"{member.host} is a member of {where}{server} already, not of {member.domain}",
        detail="somebody else joined it; Skyspan leaves that alone",
        hint=f"on {member.host}: tailscale logout, or correct `tailnet_domain` and `login_server`",
    )


def _join(member: Member, seen: Survey, *, again: bool = False) -> Move:
    flags = [f"--hostname={member.host}", f"--accept-dns={_word(member.accept_dns)}"]
    flags += [f"--accept-routes={_word(member.accept_routes)}"]
    if member.server != DEFAULT_SERVER:
        flags.append(f"--login-server={member.server}")
    if member.tags and not member.by_key:
        flags.append(f"--advertise-tags={','.join(member.tags)}")
    if member.routes:
        flags.append(f"--advertise-routes={','.join(member.routes)}")
    return Move("rejoin" if again else "join", tuple(flags), () if again else _prior(member, seen), member.families)


def _set(member: Member, seen: Survey) -> Move:
    return Move("set", tuple(_flags(member, seen.prefs)), _prior(member, seen), member.families)


def _flags(member: Member, prefs: Prefs) -> Iterator[str]:
    """What `tailscale set` has to change; nothing that is so already."""
    if prefs.hostname != member.host:
        yield f"--hostname={member.host}"
    if prefs.accept_dns != member.accept_dns:
        yield f"--accept-dns={_word(member.accept_dns)}"
    if prefs.accept_routes != member.accept_routes:
        yield f"--accept-routes={_word(member.accept_routes)}"
    if prefs.routes != member.routes:
        yield f"--advertise-routes={','.join(member.routes)}"


def _prior(member: Member, seen: Survey) -> tuple[str, ...]:
    """What brings back the settings of a host that this stage has not joined."""
    if is_ours(member, seen) or seen.node is None:
        return ()
    prefs = seen.prefs
    return (
        f"--hostname={prefs.hostname}",
        f"--accept-dns={_word(prefs.accept_dns)}",
        f"--accept-routes={_word(prefs.accept_routes)}",
        f"--advertise-routes={','.join(prefs.routes)}",
    )


def _word(on: bool) -> str:
    return "true" if on else "false"


def resources(spec: TailscaleSpec, member: Member, seen: Survey) -> Iterator[ResourceChange]:
    """What would be done on a host, for people; raises StageError as `move`."""
    refuse_install(spec, member.host, seen)
    reason = installs(spec, seen)
    if reason:
        action = Action.UPDATE if seen.installed else Action.CREATE
        yield ResourceChange(f"{member.host}: package tailscale", action, reason)
    step = move(member, seen, retag=spec.retag)
    if step is None:
        return
    address = f"{member.host}: membership of {member.domain}"
    match step.action:
        case "join":
            yield ResourceChange(address, Action.CREATE, f"it is {seen.state}")
        case "rejoin":
            yield ResourceChange(address, Action.REPLACE, _why_again(member, seen))
        case "raise":
            yield ResourceChange(address, Action.UPDATE, "it is stopped")
        case "restart":
            yield ResourceChange(address, Action.UPDATE, "its interface is down, or has lost its routes")
        case _:
            yield ResourceChange(address, Action.UPDATE, " ".join(step.flags) or f"tailscaled is {seen.state}")


def _why_again(member: Member, seen: Survey) -> str:
    node = seen.node or Node("")
    if node.expired:
        return "its node key has expired"
    if _elsewhere(member, node, seen.prefs):
        return f"it is in {node.suffix or seen.prefs.server}"
    return f"its tags are {_listed(node.tags)}"
