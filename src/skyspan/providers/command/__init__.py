"""The `command` provider: runs a command, here or on a host."""
