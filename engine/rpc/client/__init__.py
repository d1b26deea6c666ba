"""Who calls.

client       what users call: bind, statistics, close
binding      a client's view of one interface
carrier      beginning calls, and what they and their pipes ask of the connection that carries them
connection   one connection to a server: its messages, and its life
session      how far the conversation with the server has come
awaiting     what becomes of calls that have no connection, or lose it
call_table   the outstanding calls, and their one outcome
spinning     whether who has sent a call stays awake until the answer comes
outbox       what is to be sent, and which calls have left in which message
retry        calls of idempotent operations, which are sent again
buffers      answers that fill the caller's buffers
interception interceptors, and the calls that wait until they are done
pipes        operations with pipes, and the client's ends of those of one call
"""
