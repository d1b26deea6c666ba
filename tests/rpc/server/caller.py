"""A client in a process of its own, to be killed: it begins a call or opens a handle, says so, and waits.

python -m tests.rpc.server.caller ENDPOINT hold|probe|open|block KEY
"""

import sys

from engine import Client

from ..interfaces import Probe
from .interfaces import Store, Watch


def main() -> None:
    endpoint, what, key = sys.argv[1:]
    client = Client(endpoint)
    if what == "hold":
        client.bind(Watch).hold.begin(key)
        client.bind(Watch).echo(0)
    elif what == "probe":  # At the service of the whole folder.
        client.bind(Probe).hold.begin(key)
        client.bind(Probe).nothing()
    else:
        store = client.bind(Store)
        journal = store.open(key)
        if what == "block":
            store.block.begin(journal, key)
            client.bind(Watch).echo(0)
    print("ready", flush=True)
    sys.stdin.read()
    client.close()


if __name__ == "__main__":
    main()
