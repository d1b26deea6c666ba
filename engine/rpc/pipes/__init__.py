"""Typed streams beside the arguments of a call.

pipe         one end of one stream, the same on both sides
pipe_set     the pipes of one call, at one end: what moves, and what waits for it
shipment     elements that leave in one message
signals      the notifications of one call, in order
stream       an iterator over what comes through a pipe
"""
