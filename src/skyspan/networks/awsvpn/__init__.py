"""The own end of a VPN that a cloud manages: two IPsec tunnels, configured from the cloud's facts."""
