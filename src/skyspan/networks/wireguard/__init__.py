"""Site-to-site links by WireGuard."""
