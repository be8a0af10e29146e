"""What every lab provider shares: its facts as values and outputs, drawings, consoles, looking at a host, waiting."""
