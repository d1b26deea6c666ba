"""Iterating over what comes through a call's pipe: `stream` of an operation begins a call and returns a `Stream`.

Source: "Asynchronous Pipes". Iterating is an addition.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from sys import is_finalizing
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from ...kernel.loops import holding, loop_to_hold
from ...lifecycle import AsyncCloseable
from ..call import Call, abandon, pipes_of
from .pipe import BATCH, Pipe

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class Stream(AsyncCloseable, Generic[T, R]):
    """A call whose one out pipe is iterated over, by `for` or `async for`.

    At the end the call is completed: its error is raised, or its result is in `result`. Left before the end, the call
    is cancelled: at once if a task is cancelled, or a thread interrupted, in the midst of taking the next element, and
    by `close`, `aclose` and the end of a `with` or `async with` block; a stream that is just dropped, after a `break`
    for one, notifies the server with the next wait of the library. It ends then: there are no further elements.

    Fields:
        call: the call's handle. pipe: the pipe being pulled. result: what the call returned, None before the end.
    Threads: one at a time.
    """

    _instead = "hand over its elements"

    def __init__(self, call: Call[R], pipe: Pipe[T]) -> None:
        self.call = call
        self.pipe = pipe
        self.result: R | None = None
        self._items: deque[T] = deque()
        self._over = False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if not self._items and not self._over:
            try:
                if (loop := loop_to_hold()) is not None:
                    with holding(loop):
                        return next(self)
                self._items.extend(self.pipe.pull_wait(BATCH))
                if not self._items:
                    self.call.wait()
                    self._over = True
                    self.result = self.call.complete()
            except BaseException:  # The call failed, or the wait was interrupted: no caller will go on with it.
                self.close()
                raise
        if self._over:
            raise StopIteration
        return self._items.popleft()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        if not self._items and not self._over:
            try:
                self._items.extend(await self.pipe.pull_async(BATCH))
                if not self._items:
                    self.result = await self.call
                    self._over = True
            except BaseException:  # As above: the task was cancelled, for one.
                self.close()
                raise
        if self._over:
            raise StopAsyncIteration
        return self._items.popleft()

    def close(self) -> None:
        """Cancel the call, abortively, unless it is over. Closing twice does nothing. Blocks: never."""
        self._items.clear()
        if not self._over:
            self._over = True
            abandon(self.call)

    async def aclose(self) -> None:
        """As `close`, for `contextlib.aclosing` and other code that closes asynchronous generators."""
        self.close()

    def __del__(self) -> None:
        # Daemon threads, which the interpreter stops wherever they are, may have had the locks that this takes.
        if not getattr(self, "_over", True) and not is_finalizing():
            pipes_of(self.call).drop()  # It takes no lock: the next wait of any thread notifies the server.

    def __repr__(self) -> str:
        return f"<Stream of {self.pipe!r}>"


if TYPE_CHECKING:
    # What type checkers see of `Operation.stream`. No type variable stands for "whichever parameter is a pipe", so for
    # each of the first eight places that it may have there is an overload, the last place first: what takes any object
    # would take a pipe, too, and mostly stands before it. At other places elements are `Any`.
    from .pipe import Outbound

    Metadata = dict[str, str] | None
    At0 = Callable[Concatenate[Outbound[T], ...], Any]
    At1 = Callable[Concatenate[Any, Outbound[T], ...], Any]
    At2 = Callable[Concatenate[Any, Any, Outbound[T], ...], Any]
    At3 = Callable[Concatenate[Any, Any, Any, Outbound[T], ...], Any]
    At4 = Callable[Concatenate[Any, Any, Any, Any, Outbound[T], ...], Any]
    At5 = Callable[Concatenate[Any, Any, Any, Any, Any, Outbound[T], ...], Any]
    At6 = Callable[Concatenate[Any, Any, Any, Any, Any, Any, Outbound[T], ...], Any]
    At7 = Callable[Concatenate[Any, Any, Any, Any, Any, Any, Any, Outbound[T], ...], Any]

    class Streaming(Protocol[P, T, R]):
        """`stream` of an operation: as in a blocking call, arguments are checked where no option stands beside them."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Stream[T, R]: ...
        @overload
        def __call__(
            self, *args: Any, timeout: float | None, metadata: Metadata = None, into: Any = None, **kwargs: Any
        ) -> Stream[T, R]: ...
        @overload
        def __call__(self, *args: Any, metadata: Metadata, into: Any = None, **kwargs: Any) -> Stream[T, R]: ...
        @overload
        def __call__(self, *args: Any, into: Any, **kwargs: Any) -> Stream[T, R]: ...

    class Streams(Generic[P, R]):
        """Gives an operation its `stream`. Its own type, called as the operation is, tells where the pipe stands."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

        @overload
        def __get__(self: At7[T], of: Any, kind: Any) -> Streaming[P, T, R]: ...  # type: ignore[misc]  # self is not a base: its type selects
        @overload
        def __get__(self: At6[T], of: Any, kind: Any) -> Streaming[P, T, R]: ...  # type: ignore[misc]  # self is not a base: its type selects
        @overload
        def __get__(self: At5[T], of: Any, kind: Any) -> Streaming[P, T, R]: ...  # type: ignore[misc]  # self is not a base: its type selects
        @overload
        def __get__(self: At4[T], of: Any, kind: Any) -> Streaming[P, T, R]: ...  # type: ignore[misc]  # self is not a base: its type selects
        @overload
        def __get__(self: At3[T], of: Any, kind: Any) -> Streaming[P, T, R]: ...  # type: ignore[misc]  # self is not a base: its type selects
        @overload
        def __get__(self: At2[T], of: Any, kind: Any) -> Streaming[P, T, R]: ...  # type: ignore[misc]  # self is not a base: its type selects
        @overload
        def __get__(self: At1[T], of: Any, kind: Any) -> Streaming[P, T, R]: ...  # type: ignore[misc]  # self is not a base: its type selects
        @overload
        def __get__(self: At0[T], of: Any, kind: Any) -> Streaming[P, T, R]: ...  # type: ignore[misc]  # self is not a base: its type selects
        @overload
        def __get__(self, of: Any, kind: Any) -> Streaming[P, Any, R]: ...
        def __get__(self, of: Any, kind: Any) -> Any: ...
