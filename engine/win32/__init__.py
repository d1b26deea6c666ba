"""The documented Windows names, with their numbers and their manners, over the engine's own objects.

For porting programs line by line: `from engine.win32 import *`. Results come as return values; what C passes the
address of is a `Box`; a failure is a number, or a None or False with `GetLastError()`. Handles are the engine's objects
(`CompletionPort`, `Event`, `ThreadPool`, ...), so both ways of writing may be mixed.

    constants           statuses, notification types, flags
    errors              the last error of a thread
    values              boxes, times
    handles             CloseHandle, and what objects are called in this process
    ports               completion ports, signals as packets
    overlapped          overlapped input and output
    objects             events, semaphores, mutexes, waitable timers
    waits               waiting, sleeping, APCs, and waits of the older kind, which repeat
    threadpool          pools, work, timers, waits, I/O, their environment, cleanup groups, the running callback
    async_state         RPC_ASYNC_STATE
    async_calls         RpcAsync...: the life of a call
    server_calls        what a routine may ask of its call: attributes, context handles, a cancel or a disconnect
    bindings            string bindings, binding handles and their options
    process             what this process serves
    server              endpoints, interfaces and on which conditions, listening, statistics and the stop

Names that the engine has no counterpart for return the number that Windows documents for "cannot support".
"""

import types as _types

from .async_calls import *
from .async_state import *
from .bindings import *
from .constants import *
from .errors import *
from .errors import typed as _typed
from .handles import *
from .objects import *
from .overlapped import *
from .ports import *
from .server import *
from .server_calls import *
from .threadpool import *
from .values import *
from .waits import *

__all__ = [
    name for name, value in globals().items() if not name.startswith("_") and not isinstance(value, _types.ModuleType)
]

for _name in __all__:
    if isinstance(globals()[_name], _types.FunctionType):
        globals()[_name] = _typed(globals()[_name])
