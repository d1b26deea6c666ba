"""What commands print, and the codes that they end with.

Results go to the standard output, one JSON value a line where `--json` is said; all else goes to the standard error.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import msgspec
import typer
from rich.console import Console

from engine import (
    BadStubData,
    CallError,
    CallTimeout,
    EngineError,
    ServerUnavailable,
    UnknownInterface,
    UnknownOperation,
)

#: Colour only on a terminal, and not where `NO_COLOR` is set: rich sees to both.
console: Console = Console(highlight=False)
complaints: Console = Console(stderr=True, highlight=False)


class ExitCode(IntEnum):
    """How a command ends."""

    OK = 0
    FAILED = 1  # The call ended with an error, or the server is not well.
    USAGE = 2  # The command line is wrong; so says typer, too.
    UNREACHED = 3  # No server was reached.


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    sys.stdout.write(msgspec.json.encode(value, enc_hook=repr).decode() + "\n")
    sys.stdout.flush()


def print_value(value: Any, as_json: bool) -> None:
    """Print what a call returned: a text as it is, all else as JSON."""
    if isinstance(value, str) and not as_json:
        console.print(value, markup=False)
    elif value is not None or as_json:
        print_json(value)


def lines() -> Iterator[str]:
    """Yield the lines of the standard input, without their ends."""
    for line in sys.stdin:
        yield line.rstrip("\n")


def fail(text: str, code: ExitCode) -> typer.Exit:
    """Say what is wrong; what is returned is to be raised."""
    complaints.print(f"callport: {text}", markup=False, soft_wrap=True)
    return typer.Exit(code)


@contextmanager
def errors() -> Iterator[None]:
    """Say the engine's errors in a line, and end with their code."""
    try:
        yield
    except ServerUnavailable as error:
        raise fail(str(error), ExitCode.UNREACHED) from None
    except CallTimeout as error:
        raise fail(str(error), ExitCode.FAILED) from None
    except (UnknownInterface, UnknownOperation, BadStubData) as error:
        text = f"{type(error).__name__}: {error}; `callport inspect ENDPOINT` shows operations and what they take"
        raise fail(text, ExitCode.FAILED) from None
    except CallError as error:
        raise fail(f"{type(error).__name__}: {error}", ExitCode.FAILED) from None
    except EngineError as error:
        raise fail(str(error), ExitCode.USAGE) from None
