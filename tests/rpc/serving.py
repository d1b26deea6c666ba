"""What a service of the tests does in a process of its own; `helpers.Service` is its other end.

    python -m MODULE OPTIONS     OPTIONS as JSON: {"endpoints": [...], "server": {...}, "pool": {...} or null}

It prints its endpoints, as a JSON list, when it listens. Each line of input is a JSON list, the name of an order and
its arguments, and is answered with a JSON line; the service ends with its input.
"""

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from engine import EngineError, Server, ThreadPool


def _obey(server: Server, order: str, *args: Any) -> Any:
    if order == "statistics":
        return msgspec.to_builtins(server.statistics())
    if order == "endpoints":
        return server.endpoints
    try:
        getattr(server, order)(*args)
    except EngineError as error:
        return int(error.status)
    return 0


def serve(make: Callable[..., Server]) -> None:
    """Serve by a server that `make` makes of endpoints and options."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    options = json.loads(sys.argv[1])
    pool = ThreadPool(**options["pool"]) if options["pool"] else None
    server = make(*options["endpoints"], pool=pool, **options["server"])
    if not server.listening:
        server.listen()
    print(json.dumps(server.endpoints), flush=True)
    for line in sys.stdin:
        print(json.dumps(_obey(server, *json.loads(line))), flush=True)
    server.close(0)
    if pool is not None:
        pool.stop(1.0)
