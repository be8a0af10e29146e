"""Traffic between hosts, containers and lab nodes: measured once, or going on in the background."""
