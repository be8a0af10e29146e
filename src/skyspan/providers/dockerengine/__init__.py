"""Which Docker daemon a stage speaks to, how it is asked, and what it says: what `docker` and `compose` share."""
