"""The shell scripts that run on a lab's host: constants of POSIX sh; every value comes as an argument, files by stdin.

Each is safe to be cut off anywhere and run again: the mark of ownership is written before the lab is touched and goes
after everything else, and files are put in place by rename. netlab itself gets a home, a PATH and variables of its own,
and no standard input: what it would ask for ends it instead (its `input()` raises).
"""

from __future__ import annotations

AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec sh -euc "$@"; else exec sudo -n sh -euc "$@"; fi'
"""Runs what follows as root, by sudo where it must."""

PLACES = r"""
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH
key=$1 owner=$2 program=$3 name=$4 network=$5 variables=$6; shift 6
store=/var/lib/skyspan/netlab place=/var/lib/skyspan/netlab/$key lab=/var/lib/skyspan/netlab/$key/lab home=$place/home
ours() { [ -e "$place/owner" ] && [ "$(cat "$place/owner")" = "$owner" ]; }
put() { cat > "$1.new"; mv -f "$1.new" "$1"; }
lock() { exec 9<"$store"; flock 9; }
foreign=$(env | sed -n 's/^\(\(NETLAB\|ANSIBLE\|CLAB\)_[A-Za-z0-9_]*\)=.*/-u\n\1/p')
run() (
  IFS='
'; set -f
  exec env $foreign HOME="$home" PATH="$place/bin:$PATH" LC_ALL=C.UTF-8 TERM=dumb NO_COLOR=1 COLUMNS=200 \
    CLAB_VERSION_CHECK=disable $variables "$program" "$@" </dev/null 9<&-
)
warm() {
  mkdir -p "$1/.netlab"
  for known in "$home" "$store"/*/home "${HOME:-/root}"; do
    if [ -e "$1/.netlab/topology-defaults.pickle" ]; then return; fi
    cp "$known/.netlab/topology-defaults.pickle" "$1/.netlab/" 2>/dev/null || :
  done
}
told() {
  # Without netlab's own defaults, which are most of it and take a second; an expression holds no `:` and no `=`.
  parts="'name', 'provider', 'nodes', 'links', 'addressing', 'validate'"
  facts=$(
    run inspect --format json "nodes.__class__([(key, globals().get(key)) for key in ($parts)])" 2>/dev/null
  ) || facts=
  case $facts in "{"*) ;; *) facts=$(run inspect --format json .);; esac
  echo @facts; printf '%s\n' "$facts"
  echo @clab; if [ -e clab.yml ]; then cat clab.yml; echo; fi
  echo @files; if [ -d node_files ]; then find node_files -type f | sort | xargs -r sha256sum; fi
}
"""
"""What every script starts with. `warm` gives a home what netlab keeps of its own defaults, which take it seconds to
read: it looks itself whether that is still right, and keeps it in homes alone. Arguments: key of the stage's folder,
owner, netlab's command, name of the lab and of its management network (for what is removed by hand), netlab's variables
(lines), then the script's own."""

LOOK = r"""
if [ "$(id -u)" = 0 ] || [ -r "$store" ] || ! [ -e "$store" ]; then :; else echo "$store cannot be read" >&2; exit 1; fi
version_of() {
  real=$(readlink -f "$(command -v "$program")")
  for found in "${real%/bin/*}"/lib/python3*/site-packages/networklab-*.dist-info; do
    if [ -d "$found" ]; then basename "$found" | sed 's/^networklab-\(.*\)\.dist-info$/\1/'; return; fi
  done
  home=$(mktemp -d); run version 2>/dev/null | sed -n 's/^netlab version //p'; rm -rf "$home"
}
echo @tools
for tool in "$program" containerlab docker ansible-playbook flock; do
  if command -v "$tool" >/dev/null; then echo "yes $tool"; else echo "no $tool"; fi
done
echo @version; if command -v "$program" >/dev/null; then version_of; fi
echo @owner; cat "$place/owner" 2>/dev/null || :
echo @shipped; cat "$place/shipped" 2>/dev/null || :
echo @marks
if [ -e "$lab/netlab.lock" ]; then echo "lock yes"; fi
for file in netlab.snapshot.pickle; do
  if [ -e "$lab/$file" ]; then echo "$file $(sha256sum < "$lab/$file" | cut -d' ' -f1)"; fi
done
echo @others
for other in "$store"/*/; do
  if [ -e "$other/owner" ] && [ "$(basename "$other")" != "$key" ]; then
    echo "$(cat "$other/number" 2>/dev/null || echo 0) $(cat "$other/name" 2>/dev/null || echo -) \
$(cat "$other/management" 2>/dev/null || echo -) $(cat "$other/owner")"
  fi
done
echo @links; ip -o link show 2>/dev/null | sed 's/^[0-9]*: \([^:@]*\).*/\1/' || :
"""
"""Look at the stage's folder, the tools, and what other labs of ours have; writes nothing that stays."""

TRIAL = r"""
topology=$1; shift
scratch=$(mktemp -d "${TMPDIR:-/tmp}/skyspan.XXXXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
mkdir "$scratch/lab"
warm "$scratch/home"
home=$scratch/home
base64 -d | tar -xzC "$scratch/lab"
cd "$scratch/lab/$(dirname "$topology")"
run create "$@" "$(basename "$topology")" >&2
told
"""
"""What netlab would make of a topology, made in a folder that is gone afterwards. Standard input: the files as an
archive. Arguments: the topology's place among them, then options of `netlab create`."""

CLAIM = r"""
number=$1 management=$2
mkdir -p "$store"
lock
if [ -e "$place/owner" ] && ! ours; then echo "$place belongs to $(cat "$place/owner")" >&2; exit 90; fi
for other in "$store"/*/; do
  if [ -e "$other/owner" ] && [ "$(basename "$other")" != "$key" ]; then
    if [ "$(cat "$other/number" 2>/dev/null)" = "$number" ]; then cat "$other/owner" >&2; exit 91; fi
    theirs=$(cat "$other/name" 2>/dev/null || :)
    if [ "$(printf %.6s "$theirs")" = "$(printf %.6s "$name")" ]; then
      echo "$theirs of $(cat "$other/owner")" >&2; exit 92
    fi
    if [ -n "$management" ] && [ "$(cat "$other/management" 2>/dev/null)" = "$management" ]; then exit 93; fi
  fi
done
mkdir -p "$place"; chmod 700 "$place"
printf '%s\n' "$number" | put "$place/number"
printf '%s\n' "$name" | put "$place/name"
printf '%s\n' "$management" | put "$place/management"
mkdir -p "$place/home" "$place/bin"
# netlab asks for root by sudo, always: where there is none, it is root already.
if ! command -v sudo >/dev/null; then
  printf '#!/bin/sh\nexec "$@"\n' | put "$place/bin/sudo"; chmod 755 "$place/bin/sudo"
fi
printf '%s\n' "$owner" | put "$place/owner"
"""
"""Mark the folder as the stage's own, and its number, name and management network as taken. Arguments: number,
management network. Exits 90 when the folder, 91 the number, 92 the name, 93 the network is another lab's."""

SHIP = r"""
digest=$1 topology=$2
if ! ours; then echo "$place is not claimed" >&2; exit 1; fi
rm -rf "$place/files.new" "$place/files.old"
mkdir "$place/files.new"
base64 -d | tar -xzC "$place/files.new"
inside=$(dirname "$topology")
if [ -d "$lab" ]; then
  # What a running lab needs goes along: its lock, and containerlab's own folder.
  for kept in netlab.lock "clab-$name"; do
    if [ -e "$lab/$kept" ]; then cp -a "$lab/$kept" "$place/files.new/$inside/"; fi
  done
  mv "$place/files" "$place/files.old"
fi
mv "$place/files.new" "$place/files"
ln -sfn "files/$inside" "$lab"
rm -rf "$place/files.old"
printf '%s\n' "$digest" | put "$place/shipped"
"""
"""Put the topology and its files in place of those that are there, and a link to the topology's folder. Standard input:
the archive. Arguments: their digest, the topology's place among them."""

CREATE = r"""
told=$1 topology=$(basename "$2"); shift 2
cd -P "$lab"
locked=; if [ -e netlab.lock ]; then locked=yes; rm -f netlab.lock; fi
warm "$home"
run create "$@" "$topology" >&2
if [ -n "$locked" ]; then : > netlab.lock; fi
if [ -n "$told" ]; then told; fi
"""
"""Have netlab make its files. Arguments: whether to tell what they are (nothing for no), then as TRIAL."""

IMAGES = r"""
for image do if ! docker image inspect "$image" >/dev/null 2>&1; then echo "$image"; fi; done
"""
"""Which images the host lacks. Arguments: their names."""

UP = r"""
cd -P "$lab"
if ! [ -t 0 ]; then cat > clab.new; if [ -s clab.new ]; then mv clab.new clab.yml; else rm -f clab.new; fi; fi
run up --snapshot "$@"
"""
"""Start the lab and configure its devices. Standard input: the containerlab topology that is to be used, or nothing.
Arguments: more options."""

DEPLOY = r"""
cd -P "$lab"
cat > clab.new; mv clab.new clab.yml
for container in $1; do docker rm -f "$container" >/dev/null; done
export CLAB_VERSION_CHECK=disable
containerlab deploy -t clab.yml </dev/null >&2
printf '%s' "$3" | while read -r container interface mtu six; do
  pid=$(docker inspect --format '{{.State.Pid}}' "$container" </dev/null)
  nsenter -t "$pid" -n sh -euc '
    ip link set dev "$1" mtu "$2"
    file=/proc/sys/net/ipv6/conf/$1/disable_ipv6
    if [ "$3" = no ] && [ -e "$file" ]; then echo 1 > "$file"; fi
  ' sh "$interface" "$mtu" "$six" </dev/null
done
if [ -n "$2" ]; then run initial --no-message --limit "$2"; fi
"""
"""Have containerlab make what is missing or changed in a running lab, and netlab configure those nodes. Standard input:
the containerlab topology. Arguments: containers to make anew (by spaces), nodes to configure (by commas), and ends of
new wires in other nodes (lines of container, interface, MTU, `yes` or `no` for IPv6)."""

VALIDATE = r"""
cd -P "$lab"
run validate --skip-missing
"""

_LEFTOVERS = r"""
leftovers() {
  if [ -n "$network" ] && command -v docker >/dev/null; then
    ids=$(docker ps -aq --no-trunc --filter "label=containerlab=$name")
    if [ -n "$ids" ]; then docker rm -f $ids >/dev/null; fi
    if docker network inspect "$network" >/dev/null 2>&1; then
      if [ "$(docker network inspect --format '{{len .Containers}}' "$network")" = 0 ]; then
        docker network rm "$network" >/dev/null
      fi
    fi
  fi
  for bridge in $1; do
    if ip link show dev "$bridge" >/dev/null 2>&1; then ip link delete dev "$bridge"; fi
  done
  rm -f "/etc/ssh/ssh_config.d/clab-$name.conf"
  begin="###### CLAB-$name-START ######" end="###### CLAB-$name-END ######"
  if grep -qxF "$begin" /etc/hosts 2>/dev/null; then
    # In place: in a container the file cannot be replaced by another one.
    kept=$(awk -v b="$begin" -v e="$end" '$0 == b { off = 1 } !off { print } $0 == e { off = 0 }' /etc/hosts)
    printf '%s\n' "$kept" > /etc/hosts
  fi
  if [ -n "$network" ] && command -v docker >/dev/null; then
    left=$(docker ps -a --filter "label=containerlab=$name" --format '{{.Names}}')
    if [ -n "$left" ]; then echo "containers are left: $left" >&2; exit 1; fi
  fi
}
"""

DOWN = (
    _LEFTOVERS
    + r"""
if ! ours; then exit 0; fi
if [ -e "$lab/netlab.snapshot.pickle" ]; then
  ( cd -P "$lab"; run down ) || echo "netlab could not take the lab down: it is removed by hand" >&2
fi
leftovers "$1"
rm -f "$lab/netlab.lock"
"""
)
"""Take the lab down and keep its files. Argument: its bridges (by spaces). What netlab does not manage, as its snapshot
is another version's or half a lab stands in its way, is removed by hand."""

REMOVE = (
    _LEFTOVERS
    + r"""
if ! [ -d "$store" ]; then exit 0; fi
lock
if ! ours; then
  # Cut off while it was claimed: the folder's name is this stage's alone, and there is no lab in it.
  if ! [ -e "$place/owner" ]; then rm -rf "$place"; fi
  rmdir "$store" /var/lib/skyspan 2>/dev/null || :
  exit 0
fi
if [ -e "$lab/netlab.snapshot.pickle" ] && command -v "$program" >/dev/null; then
  ( cd -P "$lab"; run down --cleanup --force ) || echo "netlab could not take the lab down: it is removed by hand" >&2
fi
leftovers "$1"
for item in "$place"/* "$place"/.[!.]*; do
  if [ "$item" != "$place/owner" ]; then rm -rf "$item"; fi
done
rm -f "$place/owner"
rmdir "$place" "$store" /var/lib/skyspan 2>/dev/null || :
"""
)
"""Remove the lab and every file of it, the mark of ownership last. Argument: its bridges."""
