"""Who calls.

client       begin, bind, cancel, close
binding      a client's view of one interface
connection   the life of the connection, and what becomes of calls when it goes
call_table   the outstanding calls, and their one outcome
outbox       what is to be sent; `early`: encoded as the call is begun; `sent`: what has left, in which message
retry        calls of idempotent operations, which are sent again
spin         whether a thread stays awake for an answer
buffers      answers that fill the caller's buffers
pipes        the client's ends of a call's pipes
statistics   a snapshot
"""
