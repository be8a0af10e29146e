"""A link beside other filters of the host, Docker's above all: fragments of POSIX sh, and what they find read; pure.

An `accept` in one base chain does not override a drop in another one of the same hook (nft(8), verdict statements), and
Docker sets the policy of FORWARD to drop. Its chain DOCKER-USER is where others may accept before (Docker's manual,
"Packet filtering and firewalls"); what the link's own table refuses stays refused. IPv4 and IPv6 have a chain each, and
iptables may be the one of nftables or the legacy one, even both at once.

What belongs to a link is told by the shell functions that go with the fragments: `docker_matches FAMILY` prints it as
matches of iptables, one rule a line; `knows` succeeds when a listing on standard input names the link.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from skyspan.contracts.watch import Cause, Finding
from skyspan.model.change import Action, ResourceChange

BY_INTERFACE = r"""
docker_matches() { printf '%s\n' "-i $if" "-o $if"; }
knows() { grep -qF -e "\"$if\"" -e " $if "; }
"""
"""What belongs to a link that has an interface of its own, `$if`."""

FORWARDING = r"""
# The commands for the chains DOCKER-USER there are. Asking the legacy command would load its tables.
docker_filters() {
  if [ "$1" = 4 ]; then tool=iptables family_name=ip; else tool=ip6tables family_name=ip6; fi
  if nft list chain $family_name filter DOCKER-USER >/dev/null 2>&1; then
    command -v $tool-nft || command -v $tool || :
  fi
  if grep -qsx filter /proc/net/${family_name}_tables_names; then
    # Where there is but one iptables, and its tables are loaded, it is the legacy one.
    filter=$(command -v $tool-legacy || command -v $tool) || return 0
    if "$filter" -w -n -L DOCKER-USER >/dev/null 2>&1; then echo "$filter"; fi
  fi
}
docker_rule() { "$1" -w "$2" DOCKER-USER $3 -m comment --comment "$table" -j ACCEPT; }
"""
"""What the others need. They read `$table`, whose name marks the rules as the link's."""

ADMIT = r"""
admit_forwarding() {
  for family in 4 6; do
    for filter in $(docker_filters $family); do
      docker_matches $family | while read -r match; do
        case " $1 " in
          *" $family "*) docker_rule "$filter" -C "$match" 2>/dev/null || docker_rule "$filter" -I "$match";;
          *) while docker_rule "$filter" -D "$match" 2>/dev/null; do :; done;;
        esac
      done
    done
  done
}
"""
"""`admit_forwarding "4 6"`: have Docker's chains of these families, and no others, let the link through."""

LOOK = r"""
docker_admits() { # FILTER FAMILY: whether all of the link's rules are there
  matches=$(docker_matches "$2")
  if [ -z "$matches" ]; then return 1; fi
  printf '%s\n' "$matches" | while read -r match; do docker_rule "$1" -C "$match" 2>/dev/null || exit 1; done
}
look_at_forwarding() {
  echo @docker
  for family in 4 6; do
    for filter in $(docker_filters $family); do
      if docker_admits "$filter" $family; then found=yes; else found=no; fi
      echo "$family ${filter##*/} $found"
    done
  done
  echo @drops
  nft list chains 2>/dev/null | awk '
    $1 == "table" { family = $2; name = $3 }
    $1 == "chain" { chain = $2 }
    /hook forward/ && /policy drop/ { print family, name, chain }' |
    while read -r family name chain; do
      if ! nft list table "$family" "$name" 2>/dev/null | knows; then
        case $family in inet) set -- 4 6;; ip6) set -- 6;; *) set -- 4;; esac
        for version in "$@"; do echo "$version $family $name $chain"; done
      fi
    done
  for family in 4 6; do
    if [ $family = 4 ]; then tool=iptables names=ip; else tool=ip6tables names=ip6; fi
    if grep -qsx filter /proc/net/${names}_tables_names; then
      filter=$(command -v $tool-legacy || command -v $tool) || continue
      rules=$("$filter" -w -S 2>/dev/null) || continue
      if printf '%s' "$rules" | grep -qx -e '-P FORWARD DROP' && ! printf '%s' "$rules" | knows; then
        echo "$family ${filter##*/} FORWARD"
      fi
    fi
  done
}
"""
"""Print two sections: `@docker`, whether each chain DOCKER-USER lets the link through; `@drops`, chains that drop what
is forwarded while their table has no rule for the link."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Others' filters on a host. `docker` says of each chain DOCKER-USER, by family and command, whether it has the
    link's rules; `drops` are chains, by family, that drop what is forwarded and do not know the link."""

    docker: Mapping[tuple[int, str], bool]
    drops: Sequence[tuple[int, str]] = ()


NO_FILTERS = Filters({})
"""A host without any."""


def parse_filters(docker: str, drops: str) -> Filters:
    """The sections that `LOOK` prints; raises ValueError for what it cannot have printed."""
    chains = {}
    for line in docker.splitlines():
        family, tool, admitted = line.split()
        chains[int(family), tool] = admitted == "yes"
    pairs = (line.partition(" ") for line in drops.splitlines())
    return Filters(chains, tuple((int(family), chain) for family, _, chain in pairs))


def unlike(host: str, families: Sequence[int], seen: Filters) -> Iterator[ResourceChange]:
    """What has to change in Docker's chains so that they let through exactly these families."""
    for (family, tool), admitted in sorted(seen.docker.items()):
        if (family in families) != admitted:
            yield ResourceChange(f"{host}: DOCKER-USER of {tool}", Action.DESTROY if admitted else Action.CREATE)


def dropping(families: Sequence[int], seen: Filters) -> Iterator[str]:
    """In words, whose chains drop what this link forwards, beside Docker's, which the link opens itself."""
    opened = {(family, chain) for family, tool in seen.docker for chain in _forward_chains(family, tool)}
    for family, chain in seen.drops:
        if family in families and (family, chain) not in opened:
            yield f"the chain {chain} drops what is forwarded over IPv{family}, and no rule of its table names the link"


def _forward_chains(family: int, tool: str) -> tuple[str, ...]:
    """The chain in which Docker drops, as `LOOK` prints it; a tool without a suffix may be the one or the other."""
    by_nft = "ip filter FORWARD" if family == 4 else "ip6 filter FORWARD"
    return (f"{tool} FORWARD",) if tool.endswith("-legacy") else (by_nft, f"{tool} FORWARD")


def findings(host: str, families: Sequence[int], seen: Filters, link: tuple[str, str]) -> Iterator[Finding]:
    """Whatever there drops what this link forwards. `link` is what Docker does not let through, and what would have to
    be accepted, in words."""
    name, way = link
    again = "skyspan up puts the link's rules there"
    for item in unlike(host, families, seen):
        if item.action is Action.CREATE:
            chain = item.address.partition(": ")[2]
            words = f"Docker drops what is forwarded, and its chain {chain} does not let {name} through"
            yield Finding(Cause.FORWARD_DROPPED, host, words, again)
    for words in dropping(families, seen):
        hint = f"there, accept {way}: an accept of the link's own does not help"
        yield Finding(Cause.FORWARD_DROPPED, host, words, hint)
