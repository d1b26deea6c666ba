"""A process that drops links while a warning of it is an error, so that their sockets cannot be closed.

python -m tests.lifecycle.dropping
"""

import gc
import warnings

from transport import bind, connect

if __name__ == "__main__":
    warnings.simplefilter("error", ResourceWarning)
    server = bind("tcp://127.0.0.1:*")
    client = connect(server.endpoint)
    del server, client
    gc.collect()
    print("dropping", flush=True)
