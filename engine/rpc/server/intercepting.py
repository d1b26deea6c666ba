"""The interceptors of a server: they run around each routine that the program has registered.

Theory of operation. They are the last that prepares a call (`routines.py`): contexts and pipes are in their places when
they begin, and they run where the routine does, in its thread or in its loop, and in the call's own context. They are
resumed as the call is closed (`answers.py`): by what the routine returns or raises, by a handle's `complete` and
`abort`, or because the server gives the call up.

    preparers -> begin -> routine -> closed -> resumed -> the answer

Those that await stand in the place of an `async def` routine, in its task: inside of all others, and over when the
routine is. They are what is run of the routine's entry from then on; an ordinary routine cannot have them.

Guarantees: they are resumed once, before the answer is made.
"""

import sys
from collections.abc import AsyncGenerator, Callable, Iterable
from functools import wraps
from typing import Any

from msgspec import UNSET

from transport.foreign import a_type, is_interrupt, shown

from ...errors import InvalidArgumentType, InvalidAsyncHandle, InvalidState
from ..interceptors import Around, AsyncInterceptor, Intercepted, Interceptor, missing_result
from ..serving import task_call
from .call import ServerCall, handle_of, log_unanswered
from .open_call import OpenCall
from .pipes import generated
from .routines import UNANSWERED, Entry


class IncomingCall(Intercepted, eq=False, kw_only=True):
    """A call as an interceptor of a server finds it.

    Fields:
        interface, operation, version: what is called.
        args: the arguments, in their places, as the routine is to get them. May be changed before the `yield`.
        metadata: the texts of its client.
        one_way: whether nothing goes back.
        result: after the `yield`, what the routine has returned; `msgspec.UNSET` before it, and where it has failed.
            May be changed; who answers the call, or catches its failure, sets it.
    """

    _call: Any
    _kept: bool = False  # Whether it is answered later.

    def keep(self) -> ServerCall:
        """Take the call over, and return its handle, by which it is answered later, from any thread.

        The interceptor returns then, without a `yield`. If the handle is dropped, the call ends with `CallFailed`.
        """
        self._kept = self._call.given = True
        self.result: Any = None
        return self.handle

    @property
    def handle(self) -> ServerCall:
        """The call's handle: who calls, the time left, trailing metadata. Do not close the call by it."""
        return handle_of(self._call)


def intercept(call: OpenCall, args: list[Any], interceptors: Iterable[Interceptor]) -> bool:
    """Begin the interceptors of a call whose routine is about to be entered; False: one of them has answered it."""
    seen = _seen(call, args)
    around = call.extras().around = Around(seen)
    if around.begin(interceptors):
        args[:] = seen.args
        return True
    if not seen._kept:
        _may_answer(call)
        call.answers.answer(call, seen.result)
    return False


def first_unfit(entries: Iterable[Entry]) -> Entry | None:
    """Return the first entry whose routine runs in no task, so that nothing can be awaited around it."""
    return next((each for each in entries if not each.in_task), None)


def cannot_await(interceptor: AsyncInterceptor, entry: Entry) -> InvalidArgumentType:
    """What is wrong with an interceptor that awaits, and such an entry."""
    return InvalidArgumentType(
        f"{shown(interceptor)} awaits, and so cannot run around '{entry.spec.name}', an ordinary routine: make that an "
        "`async def`, or the interceptor an ordinary generator function"
    )


def await_around(entry: Entry, interceptors: Callable[[], Iterable[AsyncInterceptor]]) -> None:
    """Have what `interceptors` returns at each call run around the routine of an entry, in its task."""

    @wraps(entry.routine)
    async def surrounded(*args: Any) -> Any:
        return await _serve(interceptors(), args)

    entry.function = surrounded


async def _serve(interceptors: Iterable[AsyncInterceptor], args: tuple[Any, ...]) -> Any:
    """Run the routine of the call that this task serves, and interceptors around it; see `run_prepared`."""
    served: Any = task_call.get()
    call: OpenCall = served[0]
    entry = call.entry
    first, given = (args[:1], args[1:]) if entry.takes_handle else ((), args)
    seen = _seen(call, list(given))

    async def enter() -> Any:
        value = entry.routine(*first, *seen.args)
        return await (value if call.pipes is None else generated(call.pipes, value))

    if await _surround(seen, interceptors, enter):
        return seen.result
    if not seen._kept:
        if call.pipes is not None:
            call.pipes.close()
        try:
            call.answers.answer(call, seen.result)
        except (InvalidAsyncHandle, InvalidArgumentType) as error:
            log_unanswered(call, seen.result, error)
    return UNANSWERED


async def _surround(seen: IncomingCall, interceptors: Iterable[AsyncInterceptor], enter: Callable[[], Any]) -> bool:
    """Await interceptors, and within them what `enter` returns; False: that has not returned, and one of them has
    answered the call, with `seen.result`. Raises: what it fails with.
    """
    begun: list[AsyncGenerator[None, None]] = []
    error: BaseException | None = None
    returned = False
    try:
        if await _all_proceed(seen, interceptors, begun):
            seen.result = await enter()
            returned = True
        elif not seen._kept:
            _may_answer(seen._call)
    except BaseException as raised:
        if _is_closed():
            raise  # Nothing can be awaited any more: the loop has ended.
        error = raised
    while begun:
        if error is not None:
            seen.result = UNSET
        running = begun.pop()
        caught, error = error, await _resumed(running, error)
        if error is None:
            error = missing_result(seen, running, caught)
    if error is not None:
        raise error
    return returned


def _is_closed() -> bool:
    """Whether what is being handled is the end of the coroutine that handles it: nothing that it calls raised that."""
    kind, _, trace = sys.exc_info()
    return kind is GeneratorExit and trace is not None and trace.tb_next is None


async def _all_proceed(
    seen: IncomingCall, interceptors: Iterable[AsyncInterceptor], begun: list[AsyncGenerator[None, None]]
) -> bool:
    for interceptor in interceptors:
        running: Any = interceptor(seen)
        if not isinstance(running, AsyncGenerator):
            raise InvalidArgumentType(
                f"an interceptor that awaits is an async generator function, and {shown(interceptor)} has returned "
                f"{a_type(running)}"
            )
        try:
            await anext(running)
        except StopAsyncIteration:
            if (missing := missing_result(seen, running)) is not None:
                raise missing from None
            return False
        begun.append(running)
    return True


async def _resumed(running: AsyncGenerator[None, None], error: BaseException | None) -> BaseException | None:
    try:
        await (anext(running) if error is None else running.athrow(error))
    except StopAsyncIteration:
        return None
    except BaseException as raised:
        return raised
    try:
        await running.aclose()
    except BaseException as raised:
        if is_interrupt(raised):
            return raised
    return InvalidState(f"{shown(running)} has a second `yield`: an interceptor lets its call proceed once")


def _seen(call: OpenCall, args: list[Any]) -> IncomingCall:
    spec = call.entry.spec
    target = spec.target
    return IncomingCall(
        target.interface, target.operation, (target.major, target.minor), args, call.metadata(), spec.one_way,
        _call=call,
    )  # fmt: skip


def _may_answer(call: OpenCall) -> None:
    if call.pipes is not None:
        name = call.entry.spec.name
        raise InvalidState(f"{name} has pipes: an interceptor can let it proceed or raise, and not answer it")
