"""BGP between the gateways of a link: BIRD or FRR, an instance of its own per stage."""
