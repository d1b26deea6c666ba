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

Several servers; a client of one imports none of these but the two at the end:

fleet          the servers of one client, and what becomes of calls that one of them does not run
member         one of them: how it is
balance        which of them a call goes to
elsewhere      what a connection asks of the others
homes          which of them a context handle is of
following      those that the greeting of a client's only server names
asking         asks members who the others are
resolver       what says who they are
pinned_session calls that stay with one
"""
