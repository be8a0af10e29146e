"""The `tailscale` provider: hosts as members of a tailnet, run by Tailscale or by Headscale."""
