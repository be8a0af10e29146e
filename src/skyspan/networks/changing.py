"""What every script that changes a host for a network starts with: a fragment of POSIX sh.

The scripts set `$store`, the folder on the host in which Skyspan keeps its marks, before it.
"""

from __future__ import annotations

CHANGING = r"""
umask 077
doing="starting"
step() { doing=$1; }
trap 'code=$?; [ $code = 0 ] || echo "failed while $doing" >&2' EXIT
# The folder itself is the lock, so that nothing is left behind; it may vanish between opening and locking.
lock() {
  while :; do
    mkdir -p "$store"; exec 9<"$store"; flock 9
    if [ /proc/self/fd/9 -ef "$store" ]; then return; fi
  done
}
put() { cat > "$1.new"; mv -f "$1.new" "$1"; }
"""
"""`step WORDS`: what a failure from now on is said to have happened in. `lock`: be alone on the host until the script
ends. `put FILE`: standard input into a file, by rename."""
