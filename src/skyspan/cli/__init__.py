"""The command line: one file per verb; only the views print."""
