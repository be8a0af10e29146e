"""The keeper: a small process that owns writing commands of this machine, so that they outlive the engine."""
