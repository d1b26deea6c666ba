"""Beginning calls: what a client's bindings call for each of their operations.

Theory of operation. Beginning a call enters it in the table of its connection and appends it to the outbox; neither
takes a lock. It leaves at once, or waits to be batched; see `connection.py`, and there what orders these steps.
"""

import itertools
from collections.abc import Callable
from functools import wraps
from typing import Any

from transport.frames import CallOptions
from transport.wire.codec import DEFERRABLE_BYTES, PendingCall, deferrable
from transport.wire.conversation import ConversationState

from ...errors import QueueFull
from ...kernel.checks import check_timeout
from ...kernel.packet import PacketTemplate
from .. import serving
from ..call import Call, adopt, handle_of
from ..contract.spec import OperationSpec
from ..metadata import check_metadata
from ..notify import snapshot
from ..state import State
from .binding import Begin, BoundOperation
from .buffers import filling
from .carrier import Carrier
from .outbox import LoneMessage, encode_eagerly
from .pipes import ClientPipes

_LEAVING = ConversationState.LEAVING
_PENDING = int(State.PENDING)


class Issuer:
    """Begins the calls of one client.

    Args: `timeout` of calls that have none of their own, in seconds, and `max_calls`: see `Client`.
    """

    def __init__(self, carrier: Carrier, timeout: float | None, max_calls: int) -> None:
        self.carrier: Carrier = carrier
        self._timeout = timeout
        self._max_calls = max_calls
        self._ids = itertools.count(1)
        self._decorated = False

    def decorate(self, wrap: Callable[[Begin], Begin]) -> None:
        """Have calls of bindings that are made from now on begun by `wrap(begin)`, and none by a way past it."""
        self.begin = wrap(self.begin)  # type: ignore[method-assign]  # on this instance only
        self._decorated = True

    def begin(
        self,
        spec: OperationSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        notify: Any,
        timeout: float | None,
        metadata: dict[str, str] | None,
        handle: Call[Any] | None,
        pipes: ClientPipes | None = None,
    ) -> Call[Any]:
        """Accept a call, or raise. `BoundOperation.begin` describes the arguments.

        A call with `pipes` has a handle.
        """
        # Hot path: flat, and without a lock, as this runs for every call.
        if kwargs or (type(args[0]) is not spec.only if len(args) == 1 else tuple(map(type, args)) != spec.exact):
            args = spec.arrange(args, kwargs or {})
        if notify is not None and type(notify) is not PacketTemplate:
            notify = snapshot(notify)
        if timeout is None:
            timeout = self._timeout
        else:
            timeout = check_timeout(timeout)
        if metadata is not None:
            metadata = check_metadata(metadata)
        carrier = self.carrier
        connection = carrier.connection
        session, calls, queue = connection.session, connection.table.calls, connection.outbox.queue
        if serving.serving and (outer := serving.current.get()) is not None:
            timeout, metadata = serving.inherit(outer, timeout, metadata, connection.metadata)
        if handle is not None:
            handle = handle_of(handle)
        if session.state is _LEAVING:
            raise carrier.closed_error()
        if len(calls) >= self._max_calls:
            raise QueueFull(f"{len(calls)} calls are outstanding, max_calls allows no more: complete some first")
        options = None
        if timeout is not None or metadata is not None or spec.special:
            options = CallOptions(
                time_left=timeout, metadata=metadata, lane=spec.lane, one_way=spec.one_way, pipes=spec.directions
            )
        call_id = next(self._ids)
        pending: PendingCall | LoneMessage
        if (spec.only is bytes and type(args[0]) is bytes and len(args[0]) <= DEFERRABLE_BYTES) or deferrable(args):
            pending = (call_id, spec.target, args, options)
            due = False
        else:
            pending, due = encode_eagerly(session.limit, spec, call_id, args, options)
        if handle is None:
            call: Call[Any] = Call(None, carrier, spec, notify, call_id, _PENDING)
        else:
            call = handle
            adopt(call, carrier, spec, notify, call_id, pipes)
        if spec.retried:
            connection.retries.track(call, call_id, pending)
        calls[call_id] = call
        queue.append(pending)
        needs_driver = notify is not None and notify.needs_driver
        if not session.is_open or timeout is not None or spec.one_way or needs_driver:
            carrier.accepted(call, call_id, spec, notify, timeout)
        if due or len(queue) > connection.batch_threshold:
            connection.channel.flush()
        elif not connection.channel.deferred:
            connection.channel.defer()
        return call

    def shortcut(self, spec: OperationSpec) -> Callable[..., Call[Any]] | None:
        """Return what does for the usual call what `BoundOperation.begin` does for any, in two thirds of the time.

        What does not change from call to call is looked up once. A call that needs more than a place in the table and
        in the queue goes the long way; if each does, None is returned. The steps, and their order, are those of
        `begin`.
        """
        if spec.special or spec.retried or spec.outputs or self._timeout is not None or self._decorated:
            return None
        carrier, ids, most = self.carrier, self._ids, self._max_calls
        connection = carrier.connection
        session, table, channel, queue = (
            connection.session,
            connection.table,
            connection.channel,
            connection.outbox.queue,
        )
        target, exact, only, typed = spec.target, spec.exact, spec.only, spec.signature is not None
        calls, lock, flush, short = (
            table.calls,
            table.lock,
            channel.flush,
            DEFERRABLE_BYTES if spec.only is bytes else -1,
        )
        unusual = self._begin_unusual

        @wraps(BoundOperation.begin)
        def begin_usual(*args: Any, notify: Any = None, handle: Call[Any] | None = None, **more: Any) -> Call[Any]:
            if (
                more
                or not session.is_open
                or len(calls) >= most
                or (typed and (type(args[0]) is not only if len(args) == 1 else tuple(map(type, args)) != exact))
                or not ((short > 0 and len(args[0]) <= short) or deferrable(args))
                or (serving.serving and serving.current.get() is not None)
            ):
                return unusual(spec, args, notify, handle, **more)
            if notify is not None and type(notify) is not PacketTemplate:
                notify = snapshot(notify)
            call_id = next(ids)
            if handle is None:
                call: Call[Any] = Call(None, carrier, spec, notify, call_id, _PENDING)
            else:
                call = handle_of(handle)
                adopt(call, carrier, spec, notify, call_id)
            calls[call_id] = call
            queue.append((call_id, target, args, None))
            if not session.is_open:
                carrier.accepted(call, call_id, spec, notify, None)
            elif notify is not None and notify.needs_driver:
                if lock.owned():
                    lock.refuse()
                try:
                    lock.acquire()
                    more_to_do = not connection.attended or not session.is_open
                    if not more_to_do:
                        table.need_driver += 1
                except BaseException:
                    if lock.owned():
                        lock.release()
                    raise
                lock.release()
                if more_to_do:
                    carrier.accepted(call, call_id, spec, notify, None)
            if len(queue) > connection.batch_threshold:
                flush()
            elif not channel.deferred:
                channel.defer()
            return call

        return begin_usual

    def _begin_unusual(
        self,
        spec: OperationSpec,
        args: tuple[Any, ...],
        notify: Any,
        handle: Call[Any] | None,
        timeout: float | None = None,
        metadata: dict[str, str] | None = None,
        into: Any = None,
        **kwargs: Any,
    ) -> Call[Any]:
        """What `BoundOperation.begin` does."""
        chosen = spec if into is None else filling(spec, into)
        return self.begin(chosen, args, kwargs, notify, timeout, metadata, handle)
