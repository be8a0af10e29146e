"""What a Docker host among the stand-ins is given: settings, scripts, the places of its files (pure).

Facts of dockerd: its reference (docs.docker.com, "dockerd") and what Debian's docker.io 20.10 and later ones do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from skyspan.model.value import Value

PROGRAMS = ("dockerd", "docker", "containerd", "containerd-shim-runc-v2", "runc", "iptables")
"""What has to be there."""

MORE_PROGRAMS = ("containerlab", "docker-compose", "netlab")
"""What is laid where it is found: a lab host has them."""

PLUGINS = "usr/local/lib/docker/cli-plugins"
"""Where the `docker` command looks for `docker compose`."""

DATA = "var/lib/docker"
"""Where the daemon keeps all it has: a folder that is no overlay, as its own storage is one."""

OWN_FOLDERS = ("etc/docker", "var/lib/docker")
"""Folders of a Docker host of which it sees nothing of this machine's."""

SETTINGS_FILE = "etc/docker/daemon.json"

SERVICE_FILE = "/etc/init.d/docker"

_SETTINGS: Mapping[str, Value] = MappingProxyType({"shutdown-timeout": 3})
"""A stop of the service does not wait as long as on a real host for containers that ignore SIGTERM."""

SERVICE = """#!/bin/sh
pid=/run/docker.pid
running() { [ -e $pid ] && kill -0 "$(cat $pid)" 2>/dev/null; }
start() {
  if running; then return; fi
  rm -f $pid
  for place in /sys/fs/cgroup/init /sys/fs/cgroup/*; do
    if [ -e $place/cgroup.procs ]; then
      echo $$ > $place/cgroup.procs
      case $place in */init) break;; esac
    fi
  done
  setsid dockerd -p $pid </dev/null >>/var/log/docker.log 2>&1 &
}
stop() {
  if running; then kill "$(cat $pid)"; while running; do sleep 0.1; done; fi
  rm -f $pid
}
case $1 in start) start;; stop) stop;; restart) stop; start;; *) echo "start, stop or restart" >&2; exit 2;; esac
"""
"""The service of dockerd, for a machine without systemd. It begins in the machine's own control groups, whoever calls
it: the unified hierarchy has processes in `init` only (see `firstprocess`)."""

START = f"""
cat > {SERVICE_FILE}
chmod 755 {SERVICE_FILE}
{SERVICE_FILE} start
tries=0
until docker version >/dev/null 2>&1; do
  tries=$((tries+1)); [ $tries -lt 200 ] || {{ tail -n 5 /var/log/docker.log >&2; exit 1; }}
  sleep 0.05
done
docker image ls --format '{{{{.Repository}}}}:{{{{.Tag}}}}'
"""
"""Start dockerd, wait until it answers, and print its images; standard input: its service file."""

IMPORT = """
name=$1; shift
for instruction; do set -- "$@" -c "$instruction"; shift; done
exec docker import "$@" - "$name"
"""
"""Make an image of a root file system. Arguments: its name, and instructions of a Dockerfile; standard input: a tar."""

LOAD = """
said=$(docker load)
name=$(printf '%s\\n' "$said" | sed -n 's/^Loaded image\\( ID\\)\\{0,1\\}: //p' | head -n 1)
[ -n "$name" ] || { printf '%s\\n' "$said" >&2; exit 1; }
docker tag "$name" "$1"
"""
"""Make images of what `docker save` wrote. Argument: the name that the first of them gets; standard input: the tar."""

LIST = """
docker ps -a --no-trunc --format 'container {{.Names}} of {{.Image}}'
docker network ls --no-trunc --format 'network {{.Name}} {{.ID}}'
docker volume ls --format 'volume {{.Name}}'
docker image ls --no-trunc --format 'image {{.Repository}}:{{.Tag}} {{.ID}}'
"""
"""Everything that a daemon has, a line each: no deployment may leave anything."""


def settings(own: Mapping[str, Value]) -> str:
    """The text of /etc/docker/daemon.json: `own` settings win over ours."""
    return json.dumps({**_SETTINGS, **own}, indent=2) + "\n"


def full_name(reference: str) -> str:
    """A reference as `docker image ls` shows it."""
    return reference if ":" in reference.rpartition("/")[2] else f"{reference}:latest"
