"""What the programs that run long are told: for how long, by which seed, over which link."""

import argparse
import secrets

from ..certificates import for_client, for_server

#: The links that reach other processes.
LINKS = ("tcp", "ipc", "native+tcp", "native+ipc", "tls")


class Given(argparse.Namespace):
    """What was given."""

    seconds: float
    seed: int
    link: str
    part: str
    arguments: str


def parse(program: str, description: str) -> Given:
    """Read the command line. `--part` and `--arguments` are for the processes that a program starts of itself."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("seconds", type=float, help="how long")
    parser.add_argument("--seed", type=int, default=None, help="repeats the plan of another run")
    parser.add_argument("--link", choices=LINKS, default="tcp")
    parser.add_argument("--part", default="")
    parser.add_argument("--arguments", default="")
    given = parser.parse_args(namespace=Given())
    if given.seed is None:
        given.seed = secrets.randbelow(1_000_000)
    return given


def endpoint(link: str, folder: str, name: str) -> str:
    """An endpoint on that link which nobody has."""
    return f"{link}://{folder}/{name}" if link.endswith("ipc") else f"{link}://127.0.0.1:*"


__all__ = ["LINKS", "Given", "endpoint", "for_client", "for_server", "parse"]
