"""Who answers.

server       the life: listen, stop, wait, close; register
admission    how many calls are open, and whether more are taken; who may call an interface
listener     one endpoint: what arrives
answers      one endpoint: a call is closed, its answer encoded, queued and sent
peer         a client, as an endpoint knows it
registry     which routine serves which operation
lane, batch  the calls of one connection, run by workers in order; ordinary calls without a handle
call         the handle of one call being served; `extras`: what few calls have beside it
routines     routines that take context handles; `contexts`: who uses them, and their rundown
outputs      routines whose operation fills buffers of the caller's
entering     whether a thread is inside the routine that it set out to call
pipes        the server's ends of a call's pipes
subscription being told that a call's client cancelled, or is gone
coroutines   the event loop of `async def` routines
management   what a client may ask of any server; `statistics`: a snapshot
fault        what a client is told of an exception
ending       the signals that end a service
leak_check   manager routines that look as if they had forgotten to answer
"""
