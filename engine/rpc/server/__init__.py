"""Who answers.

server       the life: listen, stop, wait, close; register
admission    how many calls are open, and whether more are taken; who may call an interface; statistics
listener     one endpoint: what arrives
answers      one endpoint: a call is closed, its answer encoded, queued and sent
peer         a client, as an endpoint knows it
registry     which routine serves which operation; `entry`: one of these
lane, batch  the calls of one connection, run by workers in order; ordinary calls without a record of their own
open_call    the record of one call being served; `call`: its handle, which users have
routines     routines whose arguments are prepared; `contexts`: who uses context handles, and their rundown
entering     whether a thread is inside the routine that it set out to call
pipes        the server's ends of a call's pipes
subscription notifications that a call's client cancelled, or is gone
coroutines   the event loop of `async def` routines
management   what a client may ask of any server
fault        what of an exception reaches the client
ending       the signals that end a service
"""
