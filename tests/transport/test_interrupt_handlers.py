"""What a signal handler raised is told from what foreign code raised."""

import functools
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

import transport  # noqa: F401  # loads what is looked at

is_interrupt: Callable[[BaseException], bool] = sys.modules["transport.foreign"].is_interrupt


class _Raises:
    """What a program may set as a signal handler."""

    def __call__(self, *_: object) -> None:
        raise SystemExit

    def method(self, *_: object) -> None:
        raise SystemExit


class _StepsBack(_Raises):
    """The same, which set another in their place before they raise: a second signal ends the process."""

    def __call__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise SystemExit

    def method(self, *taken: object) -> None:
        self(*taken)

    def bound(self, first: object, number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise SystemExit


@pytest.mark.skipif(sys.platform == "win32", reason="raises SIGTERM")
@pytest.mark.parametrize(
    "handler", [_StepsBack(), _StepsBack().method, functools.partial(_StepsBack().bound, 1), _StepsBack().__call__]
)
def test_handlers_that_set_another_in_their_place(handler: Any) -> None:
    """So is what one raised that is the handler no more; an error of code that was given a frame is its own."""
    test_every_kind_of_signal_handler_is_known(handler)

    def told_of(frame: object) -> None:
        raise SystemExit

    try:
        told_of(sys._getframe())
    except SystemExit as error:
        assert not is_interrupt(error)


@pytest.mark.skipif(sys.platform == "win32", reason="raises SIGTERM")
@pytest.mark.parametrize("handler", [_Raises(), _Raises().method, functools.partial(_Raises().method, 1)])
def test_every_kind_of_signal_handler_is_known(handler: Any) -> None:
    """What a signal handler raised is for the main thread, be it a function, a method, a partial, or an object."""
    before = signal.signal(signal.SIGTERM, handler)
    try:
        signal.raise_signal(signal.SIGTERM)
    except SystemExit as error:
        assert is_interrupt(error)
    else:
        raise AssertionError
    finally:
        signal.signal(signal.SIGTERM, before)
    try:
        raise SystemExit
    except SystemExit as error:
        assert not is_interrupt(error)
