"""The verbs, one file each (a file may hold two that share their options)."""
