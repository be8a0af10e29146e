"""`python -m skyspan`: the command line."""

from skyspan.cli.main import main

main()
