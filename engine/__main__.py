"""`python -m engine`: the command line, as `callport`."""

from .cli import main

main()
