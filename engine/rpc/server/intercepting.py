"""The interceptors of a server: they run around each routine that the program has registered.

Theory of operation. They are the last that prepares a call (`routines.py`): contexts and pipes are in their places when
they begin, and they run where the routine does, in its thread or in its loop, and in the call's own context. They are
resumed as the call is closed (`answers.py`): by what the routine returns or raises, by a handle's `complete` and
`abort`, or because the server gives the call up.

    preparers -> begin -> routine -> closed -> resumed -> the answer

Guarantees: they are resumed once, before the answer is made.
"""

from collections.abc import Iterable
from typing import Any

from ...errors import InvalidState
from ..interceptors import Around, Intercepted, Interceptor
from .call import ServerCall, handle_of
from .open_call import OpenCall


class IncomingCall(Intercepted, eq=False, kw_only=True):
    """A call as an interceptor of a server finds it.

    Fields:
        interface, operation, version: what is called.
        args: the arguments, in their places, as the routine is to get them. May be changed before the `yield`.
        metadata: the texts of its client.
        one_way: whether nothing goes back.
        result: after the `yield`, what the routine has returned. May be changed.
    """

    _call: Any
    _kept: bool = False  # Whether it is answered later.

    def keep(self) -> ServerCall:
        """Take the call over, and return its handle, by which it is answered later, from any thread.

        The interceptor returns then, without a `yield`. If the handle is dropped, the call ends with `CallFailed`.
        """
        self._kept = self._call.given = True
        return self.handle

    @property
    def handle(self) -> ServerCall:
        """The call's handle: who calls, the time left, trailing metadata. Do not close the call by it."""
        return handle_of(self._call)


def intercept(call: OpenCall, args: list[Any], interceptors: Iterable[Interceptor]) -> bool:
    """Begin the interceptors of a call whose routine is about to be entered; False: one of them has answered it."""
    spec = call.entry.spec
    target = spec.target
    seen = IncomingCall(
        target.interface, target.operation, (target.major, target.minor), args, call.metadata(), spec.one_way,
        _call=call,
    )  # fmt: skip
    around = call.extras().around = Around(seen)
    if around.begin(interceptors):
        args[:] = seen.args
        return True
    if seen._kept:
        return False
    if call.pipes is not None:
        raise InvalidState(f"{spec.name} has pipes: an interceptor can let it proceed or raise, and not answer it")
    call.answers.answer(call, seen.result)
    return False
