"""Interceptors: what a program has run around each call, at a client or at a server.

Theory of operation. An interceptor is a generator function that takes the call. What is before its `yield` runs before
the call, and what is after it once the call has come to an end: one object, with the same rules for blocking and for
asynchronous calls, for pipes and for one-way calls.

    def timed(call):
        began = monotonic()
        try:
            yield  # the call proceeds, to the next interceptor, and at last to the server, or to the routine
        finally:
            print(call.operation, monotonic() - began)

A failure is raised at the `yield`: who catches it has the call succeed, with the `call.result` that it sets; who raises
another one has it end with that. The result is in `call.result`, and may be replaced. Who returns before the `yield`
answers the call with the `call.result` that it sets: it does not proceed. One that does either and sets none, not even
None, has forgotten to: the call ends with `InvalidState`. So is a second `yield`, as nothing proceeds twice.

    interceptors=[a, b]     a begins, b begins, the call, b ends, a ends

Around an `async def` routine of a server one may be an async generator function, by the same rules: see
`server/intercepting.py`. A client's may not, as calls begin without waiting.

Guarantees: those that have begun are resumed once, the innermost first, in the context (`contextvars`) in which they
began. They are resumed before the program is notified of the outcome.

Assumes: `list.pop` is atomic: of two threads that end a call one resumes them.
"""

from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from inspect import isasyncgenfunction
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from transport.foreign import a_type, is_interrupt, shown, type_name

from ..errors import InvalidArgumentType, InvalidState
from ..kernel.checks import check_callback


class Intercepted(msgspec.Struct, eq=False):
    """What interceptors of both sides find on a call; see `OutgoingCall` and `IncomingCall`."""

    interface: str
    operation: str
    version: tuple[int, int]
    args: list[Any]
    metadata: dict[str, str]
    one_way: bool
    result: Any = UNSET


class OutgoingCall(Intercepted, eq=False, kw_only=True):
    """A call as an interceptor of a client finds it.

    Fields:
        interface, operation, version: what is called.
        args: the arguments, in their places, with defaults; None for pipes. May be changed before the `yield`.
        metadata: texts for the routine. As `args`.
        timeout: seconds that the call may take; None: the client's default. As `args`.
        one_way: whether nothing comes back.
        endpoint: of the server; of several, after the `yield`, of the one that the call was at last.
        result: after the `yield`, what the call returns; `msgspec.UNSET` before it, and where the call has failed. May
            be changed; who answers the call, or catches its failure, sets it.
    """

    timeout: float | None
    endpoint: str


# What `interceptors=` takes, and what each makes for a call. A server's may await.
Interceptor = Callable[[Any], Iterator[None]]
AsyncInterceptor = Callable[[Any], AsyncIterator[None]]
Running = Generator[None, None, None]
I = TypeVar("I", bound=Interceptor | AsyncInterceptor)  # noqa: E741  # read once, here


def check_interceptor(interceptor: I, *, may_await: bool = False) -> I:
    """Return an interceptor; raise `InvalidArgumentType` if it cannot be called, or is an `async def`.

    Args: `may_await`: it is a server's, and may be an async generator function.
    """
    if may_await and awaits(interceptor):
        return interceptor
    try:
        check_callback("interceptor", interceptor)
    except InvalidArgumentType:
        if not callable(interceptor):
            raise
        raise InvalidArgumentType(
            f"an interceptor that awaits is an async generator function, with one `yield`, and {shown(interceptor)} "
            "has none"
            if may_await
            else f"an interceptor of a client is an ordinary generator function, and {shown(interceptor)} is an "
            "`async def`: calls begin without waiting. Await before the call"
        ) from None
    return interceptor


def check_interceptors(interceptors: Iterable[I], *, may_await: bool = False) -> tuple[I, ...]:
    """Return interceptors as a tuple; see `check_interceptor`."""
    if not isinstance(interceptors, Iterable):
        raise InvalidArgumentType(f"interceptors must be a list of generator functions, not {shown(interceptors)}")
    return tuple(check_interceptor(each, may_await=may_await) for each in interceptors)


def awaits(interceptor: object) -> bool:
    """Whether an interceptor is an async generator function, or an object whose `__call__` is one."""
    return isasyncgenfunction(interceptor) or isasyncgenfunction(getattr(type(interceptor), "__call__", None))  # noqa: B004  # its class's method


class Around:
    """The interceptors around one call."""

    __slots__ = ("_begun", "call")

    def __init__(self, call: Intercepted) -> None:
        self.call: Intercepted = call
        # Those that have begun, the outermost first, in a box of one: who takes them out resumes them.
        self._begun: list[list[Running]] = []

    def begin(self, interceptors: Iterable[Interceptor]) -> bool:
        """Begin each; False: one of them has answered the call, with `call.result`, and the next ones do not begin.

        Raises what they raise. Either way `end` resumes those that have begun.
        """
        begun: list[Running] = []
        try:
            return _all_proceed(self.call, interceptors, begun)
        finally:
            self._begun.append(begun)

    def end(self, error: BaseException | None) -> BaseException | None:
        """Resume those that have begun, once: the call has failed with `error`, or None and `call.result` is there.

        Returns: what it fails with now; None: it has `call.result`. What a signal handler has raised is returned, too:
        once the call has ended with it, it is for this thread. Raises: nothing.
        """
        try:
            begun = self._begun.pop()
        except IndexError:
            return error
        while begun:
            if error is not None:
                self.call.result = UNSET
            running = begun.pop()
            caught, error = error, _resumed(running, error)
            if error is None:  # Not `or`: what was raised may not be asked whether it is true.
                error = missing_result(self.call, running, caught)
        return error


def _all_proceed(call: Intercepted, interceptors: Iterable[Interceptor], begun: list[Running]) -> bool:
    for interceptor in interceptors:
        running: Any = interceptor(call)
        if not isinstance(running, Generator):
            raise InvalidArgumentType(
                f"an interceptor is a generator function, with one `yield`, and {shown(interceptor)} has returned "
                f"{a_type(running)}"
            )
        try:
            next(running)
        except StopIteration:
            if (missing := missing_result(call, running)) is not None:
                raise missing from None
            return False
        begun.append(running)
    return True


def missing_result(call: Intercepted, running: object, caught: BaseException | None = None) -> InvalidState | None:
    """What is wrong with an interceptor that has returned before its `yield`, or has `caught` a failure, and has left
    no result; None: it has set one.
    """
    if call.result is not UNSET:
        return None
    did = "returned without a `yield`" if caught is None else f"caught {type_name(caught)}"
    error = InvalidState(
        f"{shown(running)} around '{call.operation}' has {did} and set no `call.result`: "
        f"{'`yield`' if caught is None else 'raise again'}, or set a result, which may be None"
    )
    error.__cause__ = caught
    return error


def _resumed(running: Running, error: BaseException | None) -> BaseException | None:
    try:
        if error is None:
            next(running)
        else:
            running.throw(error)
    except StopIteration:
        return None
    except BaseException as raised:
        return raised
    try:
        running.close()
    except BaseException as raised:
        if is_interrupt(raised):
            return raised
    return InvalidState(f"{shown(running)} has a second `yield`: an interceptor lets its call proceed once")
