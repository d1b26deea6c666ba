"""The command line: serve an object, call an operation, look at a server, make keys, measure.

main        what `callport` and `python -m engine` run
app         the commands, and what they take
connecting  what the commands that connect have in common
security    what options say of keys and certificates
targets     what `module:object` names
ending      the signals that end a service
reloading   serving anew whenever a file changes
described   what a server says that it serves, as text, and as contracts to call it by
output      what is printed, for people or as JSON, and how a command ends
top         a server's figures, live
bench       how fast an operation is
keys        files of CURVE keys

Needs `callport[cli]`: typer parses, rich prints; `serve --reload` needs `callport[reload]`, watchfiles.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Run a command of `sys.argv`; ends the process with its exit code."""
    try:
        from .app import app

        app(prog_name="callport")
    except ModuleNotFoundError as error:
        extra = {"typer": "cli", "rich": "cli", "click": "cli", "watchfiles": "reload"}.get(error.name or "")
        if extra is None:
            raise
        sys.exit(f"this needs {error.name}: pip install 'callport[{extra}]'")
