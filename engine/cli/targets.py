"""What the command line names: objects by `module:object`, operations by `interface.operation`, arguments by JSON."""

import importlib
import sys
from collections.abc import Callable
from inspect import Parameter, signature
from traceback import format_exception
from typing import Any

import msgspec
import typer

from engine import EngineError, Server

from .output import ExitCode, fail
from .security import Security


def load(target: str) -> Any:
    """Return the object that `module:object` names; the current folder is looked in first."""
    module, separator, path = target.partition(":")
    if not (module and separator and path):
        raise fail(f"{target!r}: write MODULE:OBJECT, as in service:Words", ExitCode.USAGE)
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _failed(target, error) from None  # The module is there, and imports what is not.
        raise fail(f"{target!r}: there is no module {error.name!r} here or on the path", ExitCode.USAGE) from None
    except Exception as error:
        raise _failed(target, error) from None
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise fail(f"{target!r}: {name!r} is not in {module!r}", ExitCode.USAGE) from None
    return found


def server_of(target: str, name: str, workers: int, security: Security, *endpoints: str) -> Server:
    """Return a server of what `target` names: a `Server`, a function that returns one, a class, or an object.

    A class or an object is served at the `endpoints`. A function gets them if it takes any number (`*endpoints`), and
    always in each process, where a service has several; otherwise it has its own. What secures them is for `**options`
    of such a function.
    """
    found = load(target)
    if isinstance(found, Server):
        if len(endpoints) > 1:
            raise fail(f"{target!r} is one server: several processes need a function that makes one", ExitCode.USAGE)
        if security:
            raise _no_keys_for(target)
        return found
    if callable(found) and not isinstance(found, type):
        return _server_from(target, found, security, endpoints)
    served = _run(target, found) if isinstance(found, type) else found
    server = Server(*endpoints, workers=workers, **security.of_server(endpoints[0]))
    server.register(name or type(served).__name__, served)
    return server


def _server_from(target: str, function: Callable[..., Any], security: Security, endpoints: tuple[str, ...]) -> Server:
    kinds = {each.kind for each in signature(function).parameters.values()}
    takes_any = Parameter.VAR_POSITIONAL in kinds
    if security and not (takes_any and Parameter.VAR_KEYWORD in kinds):
        raise _no_keys_for(target)
    options = security.of_server(endpoints[0]) if security else {}
    served = _run(target, function, *(endpoints if takes_any or len(endpoints) > 1 else ()), **options)
    if not isinstance(served, Server):
        raise fail(f"{target!r} returned {served!r}, not a Server", ExitCode.USAGE)
    return served


def _no_keys_for(target: str) -> typer.Exit:
    text = f"{target!r} takes no keys: serve a function of (*endpoints, **options), which gives both to its Server"
    return fail(text, ExitCode.USAGE)


def _run(target: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        return function(*args, **options)
    except EngineError:
        raise  # It says by itself what is wrong, in a line.
    except Exception as error:
        raise _failed(target, error) from None


def _failed(target: str, error: Exception) -> typer.Exit:
    """Say what the program has raised, and where: without the steps that led into it."""
    at = error.__traceback__
    while at is not None and at.tb_frame.f_globals.get("__name__", "").partition(".")[0] in ("importlib", "engine"):
        at = at.tb_next
    text = "".join(format_exception(error.with_traceback(at))).rstrip()
    return fail(f"{target!r} cannot be served:\n{text}", ExitCode.FAILED)


def operation_of(text: str) -> tuple[str, str]:
    """Split `interface.operation`."""
    interface, separator, name = text.rpartition(".")
    if not (interface and separator and name):
        raise fail(f"{text!r}: write INTERFACE.OPERATION, as in Words.synonyms", ExitCode.USAGE)
    return interface, name


def argument_of(text: str) -> Any:
    """An argument: JSON, or, what is none, a text as it stands."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
