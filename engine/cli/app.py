"""The commands of the command line, and what they take."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from engine import Client, __version__
from engine.processes import Supervisor

from . import bench as benching
from . import described, reloading
from . import keys as key_files
from . import top as live
from .connecting import connecting
from .ending import first_signal
from .output import ExitCode, console, errors, lines, print_json, print_value
from .security import Security
from .targets import argument_of, load, operation_of, server_of

app: typer.Typer = typer.Typer(
    help="Serve objects, and call and watch servers. Exit codes: 0 well, 1 a call failed, 2 wrong usage, 3 no server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
keys_app: typer.Typer = typer.Typer(
    help="Make files of CURVE keys, show them, and say whom a server lets in.", no_args_is_help=True
)
app.add_typer(keys_app, name="keys")

GRACE = 0.2  # Seconds in which clients hear of the end, and begin no call more.

Named = Annotated[str, typer.Argument(help="An interface, or INTERFACE.OPERATION; all if left out.", metavar="NAME")]
Operation = Annotated[str, typer.Argument(help="INTERFACE.OPERATION.", metavar="OPERATION")]
Arguments = Annotated[list[str] | None, typer.Argument(help="JSON values; what is none is a text.", metavar="ARGS")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one value a line.")]
Timeout = Annotated[float, typer.Option(help="Seconds that a call may take, and connecting, too.", min=0.001)]


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"callport {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """What stands before a command."""


@app.command()
def serve(
    target: Annotated[
        str,
        typer.Argument(
            help="MODULE:OBJECT: a Server, a function that makes one, a class, or an object.",
            metavar="TARGET",
        ),
    ],
    bind: Annotated[
        str, typer.Option(help="Where a class or an object is served, or what make_server(*endpoints) makes.")
    ] = "tcp://127.0.0.1:5555",
    name: Annotated[str, typer.Option(help="Under which name; otherwise that of its class.")] = "",
    workers: Annotated[int, typer.Option(help="Threads that run its routines, in each process.", min=1)] = 4,
    processes: Annotated[int, typer.Option(help="How many serve; SIGHUP replaces them one by one.", min=1)] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Begin anew when a Python file here has changed.")] = False,
    cert: Annotated[Path | None, typer.Option(metavar="FILE", help="TLS: the server's certificate (PEM).")] = None,
    cacert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TLS: clients must have a certificate of these authorities.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The secret key: of --cert, or a NAME.key of CURVE.")
    ] = None,
    allowed: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CURVE: let in whom `keys allow FILE` has added.")
    ] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C: running calls are answered; a second signal ends it at once."""
    if reload:
        reloading.run([word for word in sys.argv[1:] if word != "--reload"], Path.cwd())
        return
    security = Security(cacert=cacert, cert=cert, key=key, allowed=allowed)
    make_server = partial(server_of, target, name, workers, security)
    if processes > 1:
        with errors():
            load(target)  # What is wrong is said here, and once.
            if security:
                security.of_server(bind)
            service = Supervisor(make_server, bind, processes=processes)
            console.print(f"listening at {service.endpoint}", markup=False, soft_wrap=True)
            service.run()
        return
    with errors(), first_signal() as wait, make_server(bind) as server:
        server.listen()
        for endpoint in server.endpoints:
            console.print(f"listening at {endpoint}", markup=False, soft_wrap=True)
        wait()
        server.drain(GRACE)


@app.command()
@connecting
def call(
    client: Client, operation: Operation = "", args: Arguments = None, timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Call an operation, without its contract, and print what it returns; without one, what there is to call.

    What it streams is printed as it comes, one element a line; what is to be streamed to it are the lines of the
    standard input, each JSON, or a text.
    """
    if not operation:
        _inspect(client, "", timeout, as_json)
        return
    interface, name = operation_of(operation)
    values = [argument_of(each) for each in args or ()]
    found = described.piped(client, interface, name, timeout)
    if found is None:
        value: Any = getattr(client.bind(interface), name)(*values, timeout=timeout)
        print_value(value, as_json)
        return
    try:
        described.stream(client, found, values, map(argument_of, lines()), as_json)
    except KeyboardInterrupt:
        raise typer.Exit from None


@app.command()
@connecting
def inspect(client: Client, name: Named = "", timeout: Timeout = 10.0, as_json: AsJson = False) -> None:
    """Show what a server serves: interfaces, their operations, types and texts."""
    _inspect(client, name, timeout, as_json)


def _inspect(client: Client, name: str, timeout: float, as_json: bool) -> None:
    found = described.interfaces(client, name, timeout)
    if as_json:
        print_json(found)
    else:
        for text in described.texts(found):
            console.print(text, markup=False, soft_wrap=True)


@app.command()
@connecting
def health(client: Client, timeout: Timeout = 5.0, as_json: AsJson = False) -> None:
    """Ask whether a server takes calls: 0 if it does, 1 if it does not, 3 if none is reached."""
    listening = client.bind("callport.Management").listening(timeout=timeout)
    print_value({"listening": listening} if as_json else "listening" if listening else "not listening", as_json)
    if not listening:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
@connecting
def top(
    client: Client,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.05)] = 1.0,
    count: Annotated[int, typer.Option(help="How many looks; 0: until Ctrl-C.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Watch a server's figures."""
    try:
        live.show(client, interval, count, as_json)
    except KeyboardInterrupt:
        raise typer.Exit from None


@app.command()
@connecting
def bench(
    client: Client,
    operation: Operation,
    args: Arguments = None,
    calls: Annotated[int, typer.Option(help="How many.", min=1)] = 10_000,
    outstanding: Annotated[int, typer.Option(help="How many at once, at most.", min=1)] = 64,
    as_json: AsJson = False,
) -> None:
    """Measure an operation: calls a second, and how long they take."""
    interface, name = operation_of(operation)
    values = [*map(argument_of, args or ())]
    getattr(client.bind(interface), name)(*values, timeout=10.0)  # What fails always says so.
    found = benching.measure(client, interface, name, values, calls, outstanding)
    if as_json:
        print_json(found)
        return
    table = Table(show_header=False)
    table.add_row("calls a second", f"{found.calls_per_s:,.0f}")
    table.add_row("half of them within", f"{found.p50_ms:.3f} ms")
    table.add_row("99 of 100 within", f"{found.p99_ms:.3f} ms")
    table.add_row("the slowest", f"{found.slowest_ms:.3f} ms")
    table.add_row("faults", f"{found.faults:,} of {found.calls:,}")
    console.print(f"{operation}, {outstanding} outstanding", markup=False, soft_wrap=True)
    console.print(table)


@keys_app.command()
def make(name: Annotated[Path, typer.Argument(help="NAME.key and NAME.pub are made.")]) -> None:
    """Make a pair of CURVE keys. The file of the secret one is for its owner only (mode 0600)."""
    secret, public = key_files.make(name)
    console.print(f"{secret} (keep it) and {public}", markup=False, soft_wrap=True)


@keys_app.command()
def show(name: Annotated[Path, typer.Argument(help="Of the pair, as it was made.")]) -> None:
    """Print the public key of a pair: what others may know, as `server_key=` and in lists of allowed keys."""
    console.print(key_files.show(name), markup=False, highlight=False, soft_wrap=True)


@keys_app.command()
def allow(
    file: Annotated[Path, typer.Argument(help="The keys that a server lets in: `Curve(allowed=Path(FILE))`.")],
    key: Annotated[str, typer.Argument(help="A public key, or its .pub file.")],
    name: Annotated[str, typer.Option(help="Whose it is, for who reads the file.")] = "",
) -> None:
    """Let the owner of a key in. Servers that run look into the file by themselves."""
    added = key_files.allow(file, key, name)
    console.print(f"{file}: {'added' if added else 'it is there already'}", markup=False, soft_wrap=True)
