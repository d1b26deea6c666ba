"""What client and server agree on.

interface    named, versioned sets of operations, as classes
spec         how the calls of one operation are written and read
members      what each member of a fleet serves, so that who knows one finds all
annotations  what the annotations of a contract say, type variables replaced
compatible   whether the annotations of a routine can be right, given those of its contract
own_types    classes that msgspec does not know, and a program does
outputs      parameters that are buffers of the caller's, filled when the call is completed
"""
