"""Labs described by a netlab topology: created, started, configured and validated by netlab on a host."""
