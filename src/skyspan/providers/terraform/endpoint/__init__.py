"""The state endpoint: the HTTP backend that the tools talk to, on loopback, for the time of one verb."""
