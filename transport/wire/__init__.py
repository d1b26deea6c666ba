"""Sans-IO protocol: lists of frames <-> typed messages. It knows no socket, thread or clock.

codec           calls and replies that share a message; `encode`, `decode`
blobs           large values out of band; typed decoding of arguments and results
conversation    which message may be sent or taken when: a table for each side
large           decoding what is large, without the collector
own_types       types that msgspec does not know, as a program has said to write and read them
session         both sides of the protocol: what a message that arrives means, and what answers it

Arrows: session -> conversation; codec -> blobs -> large, own_types.
"""
