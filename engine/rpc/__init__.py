"""Asynchronous remote calls: begin one, keep its handle, be notified when the reply is here, and collect it.

The rooms, from the top down; `client` and `server` know nothing of each other:

client       who calls: binding, client, its connection, its outstanding calls
server       who answers: server, listener, admission, turns, the call being served
contract     what both agree on: interfaces, operations, output buffers
pipes        typed streams beside the arguments, the same at both ends

And the ground they stand on:

errors       outcomes that are not success
state        the states of a call as a table, and how it ended
call         the client's handle of one call
interceptors what a program has run around each call
notify       every way to be notified, and its delivery
context      state that a server keeps for a client
serving      what calls made inside a routine take over
channel      a link joined to the driver; what shares a message
limits       how large a message each side takes
wire_types   which types travel, and whether a value is of one; texts beside calls
"""
