"""The stand-in world: the same composition, run for real inside isolated network namespaces."""
