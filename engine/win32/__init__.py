"""The documented Windows names, with their numbers and their manners, over the engine's own objects.

For porting programs line by line: `from engine.win32 import *`. Results come as return values; what C passes the
address of is a `Box`; a failure is a number, or a None or False with `GetLastError()`. Handles are the engine's objects
(`CompletionPort`, `Event`, `ThreadPool`, ...), so both ways of writing may be mixed.

    constants           statuses, notification types, flags
    errors              the last error of a thread
    values              boxes, times
    handles             CloseHandle
    ports               completion ports
    overlapped          overlapped input and output
    wait_packets        signals as packets
    objects             events, semaphores, mutexes, waitable timers
    names               what objects are called in this process
    waits               waiting, sleeping, APCs
    environment         the callback environment
    threadpool          pools, work, cleanup groups, the running callback
    threadpool_sources  timers, waits, I/O
    registered_waits    waits of the older kind, which repeat
    async_state         RPC_ASYNC_STATE
    async_calls         RpcAsync...: the life of a call
    call_attributes     what a routine may ask of its call
    subscriptions       being told of a cancel or a disconnect
    thread_cancels      what there is none of: cancelling the blocking calls of a thread
    contexts            context handles
    bindings            string bindings, binding handles and their options
    process             what this process serves
    server              endpoints, listening
    interfaces          registering interfaces, and on which conditions
    management          statistics and the stop, here and from afar

Names that the engine has no counterpart for return the number that Windows documents for "cannot support".
"""

import types

from . import (
    async_calls,
    async_state,
    bindings,
    call_attributes,
    constants,
    contexts,
    environment,
    errors,
    handles,
    interfaces,
    management,
    objects,
    overlapped,
    ports,
    registered_waits,
    server,
    subscriptions,
    thread_cancels,
    threadpool,
    threadpool_sources,
    values,
    wait_packets,
    waits,
)
from .async_calls import *
from .async_state import *
from .bindings import *
from .call_attributes import *
from .constants import *
from .contexts import *
from .environment import *
from .errors import *
from .handles import *
from .interfaces import *
from .management import *
from .objects import *
from .overlapped import *
from .ports import *
from .registered_waits import *
from .server import *
from .subscriptions import *
from .thread_cancels import *
from .threadpool import *
from .threadpool_sources import *
from .values import *
from .wait_packets import *
from .waits import *

__all__: list[str] = []
__all__ += async_calls.__all__
__all__ += async_state.__all__
__all__ += bindings.__all__
__all__ += call_attributes.__all__
__all__ += constants.__all__
__all__ += contexts.__all__
__all__ += environment.__all__
__all__ += errors.__all__
__all__ += handles.__all__
__all__ += interfaces.__all__
__all__ += management.__all__
__all__ += objects.__all__
__all__ += overlapped.__all__
__all__ += ports.__all__
__all__ += registered_waits.__all__
__all__ += server.__all__
__all__ += subscriptions.__all__
__all__ += thread_cancels.__all__
__all__ += threadpool.__all__
__all__ += threadpool_sources.__all__
__all__ += values.__all__
__all__ += wait_packets.__all__
__all__ += waits.__all__

for _name in __all__:
    if isinstance(globals()[_name], types.FunctionType):
        globals()[_name] = errors.typed(globals()[_name])
