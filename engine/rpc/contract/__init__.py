"""What client and server agree on.

interface    named, versioned sets of operations, as classes
outputs      parameters that are buffers of the caller's, filled when the call is completed
"""
