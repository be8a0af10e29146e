"""Containers and networks of a Docker daemon, one by one."""
