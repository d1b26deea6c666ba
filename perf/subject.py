"""Subjects: libraries that answer the same question, each behind the same few names.

A subject is a module of `perf.subjects` (or any importable one, named with its dots) that has

    NOTE                        one line: the mode it is measured in
    missing() -> str | None     why it cannot be measured here; None if it can
    serve(settings, control)    worker function: echo at settings["endpoint"], until the parent ends it
    Client(endpoint)            an `EchoClient` of that server

The service is the same for all: it returns the bytes that it is given.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from perf.worker import Control


class EchoClient(Protocol):
    """A client of an echo server. It compares each answer with what was sent, or raises `WrongAnswer`."""

    def one_by_one(self, payloads: Sequence[bytes]) -> list[int]:
        """Call with each payload in turn; return how long each round trip took, in nanoseconds."""
        ...

    def stream(self, payloads: Sequence[bytes], outstanding: int) -> None:
        """Call with all payloads, `outstanding` calls at a time; return when all answers were checked."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class Subject(Protocol):
    """A module that is a subject."""

    NOTE: str
    missing: Callable[[], str | None]
    serve: Callable[[dict[str, Any], Control], None]
    Client: Callable[[str], EchoClient]


def subject_module(name: str) -> str:
    """Return the module of the subject called `name`."""
    return name if "." in name else f"perf.subjects.{name.replace('-', '_')}"


def load(name: str) -> Subject:
    """Import the subject called `name`, without the library that it measures."""
    return cast(Subject, importlib.import_module(subject_module(name)))


def missing(name: str) -> str | None:
    """Say why a subject cannot be measured here; None if it can."""
    return load(name).missing()
