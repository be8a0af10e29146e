"""The `check` provider: proves who reaches whom."""
