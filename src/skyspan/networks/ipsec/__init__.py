"""Links by IPsec (strongSwan)."""
