"""What the command line names: objects by `module:object`, operations by `interface.operation`, arguments by JSON."""

import importlib
import sys
from inspect import Parameter, signature
from typing import Any

import msgspec

from engine import Server

from .output import ExitCode, fail


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
            raise  # The module is there, and imports what is not.
        raise fail(f"{target!r}: there is no module {error.name!r} here or on the path", ExitCode.USAGE) from None
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise fail(f"{target!r}: {name!r} is not in {module!r}", ExitCode.USAGE) from None
    return found


def server_of(target: str, name: str, workers: int, *endpoints: str) -> Server:
    """Return a server of what `target` names: a `Server`, a function that returns one, a class, or an object.

    A class or an object is served at the `endpoints`. A function gets them if it takes any number (`*endpoints`), and
    always in each process, where a service has several; otherwise it has its own.
    """
    found = load(target)
    several = len(endpoints) > 1
    if isinstance(found, Server) and not several:
        return found
    if isinstance(found, Server):
        raise fail(f"{target!r} is one server: several processes need a function that makes one", ExitCode.USAGE)
    if isinstance(found, type):
        served = found()
        name = name or found.__name__
    elif callable(found):
        served = found(*endpoints) if several or _takes_any(found) else found()
        if isinstance(served, Server):
            return served
        raise fail(f"{target!r} returned {served!r}, not a Server", ExitCode.USAGE)
    else:
        served = found
        name = name or type(found).__name__
    server = Server(*endpoints, workers=workers)
    server.register(name, served)
    return server


def _takes_any(function: Any) -> bool:
    return any(each.kind is Parameter.VAR_POSITIONAL for each in signature(function).parameters.values())


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
