"""SSH tunnels: TCP forwards over an SSH connection to a host, local, remote and dynamic."""
