"""Who answers.

server       the life: listen, stop, wait, close; register
policy       the conditions of an interface: who may call it
faults       what a routine has raised, as its client gets it
admission    how many calls are open, and whether more are taken; statistics
listener     one endpoint: what arrives
answers      one endpoint: a call is closed, its answer encoded, queued and sent; what of an exception is sent
registry     which routine serves which operation
routines     `Entry`: one of these, how its arguments are prepared, and whether a thread is inside
intercepting interceptors around routines
turns        whose turn it is: the clients with calls, and the threads that have them
runner       the running of a client's calls by who has it
helped       the running of nonblocking ones by threads of their own process that wait
open_call    the record of one call being served, batches of ordinary calls, the client that they come from
call         the handle of a call, which users have; notifications that its client cancelled it, or is gone
contexts     who uses context handles, and their rundown
pipes        the server's ends of a call's pipes
coroutines   the running of `async def` routines as tasks, and what cancels them
own_loop     their event loop, if the program gives none
given_loop   that of the program
complaints   what clients can make a server log, at a rate that they cannot choose
management   what a client may ask of any server
reflection   descriptions of what a server serves, for clients
ending       the signals that end a service
"""
