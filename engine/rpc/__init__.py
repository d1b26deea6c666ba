"""Asynchronous remote calls: begin one, keep its handle, be told when the reply is here, and collect it.

state        the states of a call, as a table
errors       outcomes that are not success
notify       how completion is told
call         the client's handle of one call
table        the outstanding calls of a client
interface    contracts: named, versioned sets of operations
sendable     which types a contract may have
binding      a client's view of one interface
fill         results that fill the caller's buffers
outputs      parameters that are buffers of the caller's, filled on complete
signals      several things to tell of one call, in order
pipe         typed streams beside the arguments, the same at both ends
pipe_set     the pipes of one call, at one end: what moves, and who waits for it
pipe_client  the client's ends of a call's pipes
pipe_server  the server's ends, and the routines that use them
stream       operations with pipes: iterables to push, a stream to iterate over
connection   where a client's connection is in its life
association  what becomes of calls when it comes and goes
retry        calls of idempotent operations, which are sent again
client       one association with one server
outbox       what a client has to send
coalesce     what shares a message
fit          what is too large for the other side
channel      a link joined to the driver
server_call  the server's handle of one call
batch        ordinary calls, which have no handle until one is asked for
peer         a client, as an endpoint knows it
fault        what a client is told of an exception
registry     which routine serves which operation
lane         the calls of one connection, run by workers in order
gate         who may call an interface, and how many at once
attachment   what few calls have beside themselves
authentication  how well a connection is protected
subscription being told that a call's client cancelled, or is gone
inheritance  what calls made inside a routine take over
context      state that a server keeps for a client
context_book, context_routine   who uses it, and its rundown
management   what a client may ask of any server
suspicion    manager routines that look as if they had forgotten to answer
listener     one endpoint of a server
coroutines   the event loop of `async def` routines
server       interfaces, endpoints and workers, and their life
"""

from .binding import Binding, BoundOperation
from .call import Call
from .client import Client
from .connection import ClientStatistics
from .context import Context
from .errors import (
    AccessDenied,
    BadStubData,
    CallCancelled,
    CallFailed,
    CallFailedDne,
    CallTimeout,
    ContextMismatch,
    NullContext,
    PeerProtocolError,
    PipeError,
    RemoteFault,
    ServerTooBusy,
    ServerUnavailable,
    UnknownInterface,
    UnknownOperation,
)
from .interface import Interface, Operation, operation
from .management import Management
from .notify import ApcNotification, CallbackNotification, EventKind, apc
from .outputs import InOut, Out
from .pipe import InOutPipe, InPipe, OutPipe, Pipe, PipePending
from .registry import manager
from .server import Server
from .server_call import CallAttributes, ServerCall, current_call
from .server_statistics import ServerStatistics
from .state import TRANSITIONS, On, State
from .stream import PipedOperation, Stream

__all__ = [
    "TRANSITIONS",
    "AccessDenied",
    "ApcNotification",
    "BadStubData",
    "Binding",
    "BoundOperation",
    "Call",
    "CallAttributes",
    "CallCancelled",
    "CallFailed",
    "CallFailedDne",
    "CallTimeout",
    "CallbackNotification",
    "Client",
    "ClientStatistics",
    "Context",
    "ContextMismatch",
    "EventKind",
    "InOut",
    "InOutPipe",
    "InPipe",
    "Interface",
    "Management",
    "NullContext",
    "On",
    "Operation",
    "Out",
    "OutPipe",
    "PeerProtocolError",
    "Pipe",
    "PipeError",
    "PipePending",
    "PipedOperation",
    "RemoteFault",
    "Server",
    "ServerCall",
    "ServerStatistics",
    "ServerTooBusy",
    "ServerUnavailable",
    "State",
    "Stream",
    "UnknownInterface",
    "UnknownOperation",
    "apc",
    "current_call",
    "manager",
    "operation",
]
