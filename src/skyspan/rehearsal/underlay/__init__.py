"""The networks between the stand-ins, and the names by which they know each other."""
