"""`python -m engine`: the command line, as `callport`."""

from .cli import main

if __name__ == "__main__":
    main()
