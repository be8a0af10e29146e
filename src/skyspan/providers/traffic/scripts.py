"""The shell scripts that run on a host: constants of POSIX sh; every value comes as an argument, programs by stdin.

Each is safe to be cut off anywhere and run again. What a stage starts bears a mark in its environment, which all that
it starts in turn inherits, also inside a container: by it every process is found again, however it was cut off. Each
has a folder of its own, with the recorded pid; the mark of ownership is written before the first of them, removed after
the last. Without root all is in the user's home.
"""

from __future__ import annotations

PLACES = r"""
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH LC_ALL=C
number=$1 owner=$2; shift 2
if [ "$(id -u)" = 0 ]; then store=/var/lib/skyspan; else store=$HOME/.skyspan; fi
top=$store/traffic state=$store/traffic/$number
ours() { [ -e "$state/owner" ] && [ "$(cat "$state/owner")" = "$owner" ]; }
marked() { # what runs of a role, or of all for an empty name
  { grep -lsF -e "SKYSPAN_TRAFFIC=$number.$1" /proc/[0-9]*/environ || :; } | while read -r file; do
    pid=${file#/proc/} pid=${pid%/environ}
    # A container of this host may be another host of the same stage, or run a world of its own.
    if [ "/proc/$pid/ns/net" -ef /proc/self/ns/net ]; then echo "$pid"; fi
  done
}
alive() {
  pid=$(cat "$state/$1/pid" 2>/dev/null || :)
  [ -n "$pid" ] && grep -qsF -e "SKYSPAN_TRAFFIC=$number.$1@" "/proc/$pid/environ"
}
asking() { # how Docker's daemon is asked
  if ! command -v docker >/dev/null; then echo absent
  elif docker version >/dev/null 2>&1; then echo docker
  elif [ "$(id -u)" != 0 ] && sudo -n docker version >/dev/null 2>&1; then echo sudo -n docker
  else echo "refused $(docker version 2>&1 >/dev/null | tail -n 1)"
  fi
}
"""
"""What every script starts with. Arguments: the stage's number on the host, its owner, then the script's own."""

_INSIDE = r"""
inside='for file in $(grep -lsF -e "SKYSPAN_TRAFFIC=$1" /proc/[0-9]*/environ); do
  file=${file#/proc/}; kill -9 "${file%/environ}"; done'
"""

_CHANGES = (
    _INSIDE
    + r"""
umask 077
doing="starting"
step() { doing=$1; }
trap 'code=$?; [ $code = 0 ] || [ $code -ge 90 ] || echo "failed while $doing" >&2' EXIT
# The folder itself is the lock, so that nothing is left behind; it may vanish between opening and locking.
lock() {
  while :; do
    mkdir -p "$store"; exec 9<"$store"; flock 9
    if [ /proc/self/fd/9 -ef "$store" ]; then return; fi
  done
}
put() { cat > "$1.new"; mv -f "$1.new" "$1"; }
sweep() { # end what runs of a role
  for pid in $(marked "$1"); do kill "$pid" 2>/dev/null || :; done
  tries=0
  while [ -n "$(marked "$1")" ] && [ $tries -lt 40 ]; do sleep 0.05; tries=$((tries+1)); done
  for pid in $(marked "$1"); do kill -9 "$pid" 2>/dev/null || :; done
  while [ -n "$(marked "$1")" ]; do sleep 0.05; done
}
sweep_inside() { # DOCKER CONTAINER ROLE: where this user cannot see into the container from outside
  $1 exec "$2" sh -c "$inside" sh "$number.$3" >/dev/null 2>&1 || :
}
end_role() {
  sweep "$1@"
  if [ -e "$state/$1/container" ]; then
    sweep_inside "$(cat "$state/$1/docker")" "$(cat "$state/$1/container")" "$1@"
  fi
}
tidy() { rmdir "$top" "$store" 2>/dev/null || :; }
"""
)

SUPERVISE = (
    _INSIDE
    + r"""
role=$0 mode=$1 pause=$2 limit=$3 docker=$4 container=$5; shift 5
if [ -n "$container" ]; then
  set -- $docker exec -i -e "SKYSPAN_TRAFFIC=$SKYSPAN_TRAFFIC" "$container" "$@"
fi
if [ "$mode" = listen ]; then
  { "$@" < "$role/program" 2>&1; echo $? > "$role/ended"; } | {
    lines=0
    while IFS= read -r line; do
      lines=$((lines+1))
      if [ $lines -le 40 ]; then printf '%s\n' "$line" >> "$role/out"; fi
    done
  }
  exit
fi
while :; do
  begun=$(date +%s) code=0
  timeout -k 2 "$limit" "$@" < "$role/program" > "$role/said" 2> "$role/erred" || code=$?
  if [ $code = 124 ] && [ -n "$container" ]; then
    # Only the one that asked has ended.
    $docker exec "$container" sh -c "$inside" sh "$SKYSPAN_TRAFFIC" >/dev/null 2>&1
  fi
  {
    echo "$begun $(date +%s) $code"
    printf '%s\n' "$(tail -n 1 "$role/erred" | cut -c1-400)"
    cat "$role/said"
  } > "$role/window.new" && mv -f "$role/window.new" "$role/window"
  # What fails at once must not spin.
  if [ $code != 0 ] || grep -q '"error"' "$role/said"; then sleep 1; fi
  sleep "$pause"
done
"""
)
"""Goes on by itself: what listens, until it ends; or one window of traffic after the other, the last one kept.
Arguments: the role's folder, `listen` or `send`, the pause and how long a window may take at most (seconds), how Docker
is asked, the container or nothing, and the command."""

START = (
    _CHANGES
    + r"""
supervise=$1 role=$2 digest=$3 mode=$4 pause=$5 limit=$6 docker=$7 container=$8 ports=$9; shift 9
folder=$state/$role
lock
step "claiming $state"
if [ -e "$state/owner" ] && ! ours; then echo "it belongs to $(cat "$state/owner")" >&2; exit 90; fi
mkdir -p "$state"
printf '%s\n' "$owner" | put "$state/owner"
step "ending what $role was before"
end_role "$role"
rm -rf "$folder"
mkdir "$folder"
put "$folder/program"
if [ -n "$container" ]; then
  printf '%s\n' "$docker" | put "$folder/docker"
  printf '%s\n' "$container" | put "$folder/container"
fi
begin() { # PORT COMMAND...
  port=$1; shift
  count=$#
  while [ $count -gt 0 ]; do
    word=$1; shift; count=$((count-1))
    if [ "$word" = @PORT@ ]; then word=$port; fi
    set -- "$@" "$word"
  done
  rm -f "$folder/out" "$folder/ended"
  env "SKYSPAN_TRAFFIC=$number.$role@" \
    setsid sh -c "$supervise" "$folder" "$mode" "$pause" "$limit" "$docker" "$container" "$@" \
    </dev/null >/dev/null 2>&1 9<&- &
  echo $! | put "$folder/pid"
}
listens() {
  tries=0
  until grep -qs -i listening "$folder/out"; do
    tries=$((tries+1))
    if [ -e "$folder/ended" ] || [ $tries -gt 200 ]; then return 1; fi
    sleep 0.05
  done
}
if [ "$mode" = send ]; then
  step "starting $role"
  begin 0 "$@"
  printf '%s\n' "$digest" | put "$folder/digest"
  exit
fi
for port in $ports; do
  step "starting $role on port $port"
  begin "$port" "$@"
  if listens; then
    echo "$port" | put "$folder/port"
    printf '%s\n' "$digest" | put "$folder/digest"
    echo "$port"
    exit
  fi
  end_role "$role"
  said=$(cat "$folder/out" 2>/dev/null || :)
  case $said in
    *'ddress already in use'*) ;;
    *'annot assign requested address'*) rm -rf "$folder"; exit 92;;
    *) printf '%s\n' "${said:-it said nothing within 10 s}" >&2; rm -rf "$folder"; exit 93;;
  esac
done
rm -rf "$folder"
exit 91
"""
)
"""Start one role anew, and for one that listens print the port. Standard input: its program. Arguments: SUPERVISE, the
role, its digest, then as SUPERVISE from its mode to the container, the ports to try (words), the command. Exits 90 when
the folder is somebody else's, 91 when every port is taken, 92 when the address is not one of this end, 93 when it
ended, with its words."""

END = (
    _CHANGES
    + r"""
for role; do sweep "$role@"; done
if ! [ -d "$store" ]; then exit 0; fi
lock
for role; do
  step "ending $role"
  end_role "$role"
  rm -rf "$state/$role"
done
if [ -z "$(ls "$state" 2>/dev/null | grep -vx -e owner -e owner.new)" ]; then
  if ours || ! [ -e "$state/owner" ]; then rm -f "$state/owner" "$state/owner.new"; rmdir "$state" 2>/dev/null || :; fi
fi
tidy
"""
)
"""End roles and remove their folders; the stage's own goes with the last of them. Arguments: the roles."""

REMOVE = (
    _CHANGES
    + r"""
keep=$1
# Also where nothing was recorded: a process must not be left behind.
sweep ''
if ! [ -d "$store" ]; then exit 0; fi
lock
if ours; then
  for folder in "$state"/*/; do
    if ! [ -d "$folder" ]; then continue; fi
    role=${folder%/} role=${role##*/}
    step "ending $role"
    end_role "$role"
    rm -f "$state/$role/pid"
    if [ "$keep" = no ]; then rm -rf "${folder%/}"; fi
  done
  if [ "$keep" = no ]; then step "removing $state"; rm -f "$state/owner.new" "$state/owner"; fi
elif ! [ -e "$state/owner" ]; then
  rm -f "$state/owner.new"
fi
if [ "$keep" = no ]; then rmdir "$state" 2>/dev/null || :; fi
tidy
"""
)
"""End everything of the stage; unless its folders are kept (`yes`), take it away, the mark of ownership last."""

SWEEP = (
    _CHANGES
    + r"""
sweep "$1@"
if [ -n "$3" ]; then sweep_inside "$2" "$3" "$1@"; fi
"""
)
"""End what runs of a measurement that was cut off. Arguments: the role, how Docker is asked, the container or
nothing."""

SURVEY = r"""
with=$1; shift
echo "@now"; date +%s
look() { # what runs a command; prints the tools found
  "$@" sh -c 'for tool in iperf3 python3 ping curl; do
    if command -v $tool >/dev/null 2>&1; then echo $tool; fi; done' || echo "!"
}
if [ "$with" = tools ]; then
  echo "@tools"; look env
  for tool in setsid flock timeout; do if command -v $tool >/dev/null; then echo $tool; fi; done
fi
if [ $# -gt 0 ]; then
  docker=$(asking)
  echo "@docker"; echo "$docker"
  case $docker in absent|refused*) ;; *)
    for container; do
      echo "@container $container"
      state='{{.State.Status}}{{range .NetworkSettings.Networks}} {{.IPAddress}} {{.GlobalIPv6Address}}{{end}}'
      # On failure it prints an empty line all the same.
      found=$($docker inspect --type container -f "$state" "$container" 2>/dev/null) || found=missing
      printf '%s\n' "$found"
      look $docker exec "$container" 2>&1
    done;;
  esac
fi
if ours; then
  for folder in "$state"/*/; do
    if ! [ -d "$folder" ]; then continue; fi
    role=${folder%/} role=${role##*/}
    echo "@role $role"
    if alive "$role"; then echo alive yes; else echo alive no; fi
    if [ -e "$folder/ended" ]; then echo alive no; fi
    for name in digest port; do if [ -e "$folder/$name" ]; then echo "$name $(cat "$folder/$name")"; fi; done
    if [ -e "$folder/window" ]; then echo "@window $role"; sed 's/^/ /' "$folder/window"; echo; fi
    if [ -e "$folder/ended" ]; then echo "@said $role"; tail -n 3 "$folder/out" 2>/dev/null | sed 's/^/ /'; fi
  done
elif [ -e "$state/owner" ]; then echo "@foreign"; cat "$state/owner"
fi
"""
"""Look at everything at once; writes nothing. Arguments: `tools` or `roles`, the containers to look into."""
