"""How places become reachable; a tunnel is a provider like any other."""
