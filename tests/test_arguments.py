"""What public functions make of wrong arguments: each is refused when it is given, by an error that says so."""

import inspect
import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import engine.win32
from engine import (
    CallError,
    CleanupGroup,
    Client,
    CompletionPort,
    EngineError,
    Environment,
    Event,
    Executor,
    Interface,
    InvalidArgumentType,
    InvalidParameter,
    Io,
    Mutex,
    Semaphore,
    Server,
    Status,
    ThreadPool,
    Timer,
    Wait,
    WaitableTimer,
    WaitPacket,
    Work,
    apc,
    current_call,
    manager,
    operation,
    queue_apc,
    register_wait,
    signal_and_wait,
    sleep,
    submit_callback,
    wait_all,
    wait_any,
)
from engine.testing import LIMIT
from transport import Curve, EndpointError, LinkOptions


class Odd:
    """An object that nothing here knows."""

    def __repr__(self) -> str:
        return "<odd>"


NO_NUMBERS: list[Any] = [True, False, "1", b"1", 1j, [], {}, Odd(), int, math.nan, -1, -0.5]
ENDPOINT = "loopback://test-arguments"

# Options of the transport. (A client has a `connect_timeout` of its own.)
OFF = "max_address_connections"  # By None.
COUNTS = ("max_message_bytes", "max_queued", "max_connections", "max_queued_bytes", "max_total_bytes", OFF)
FRACTIONS = ("connection_rate", "greeting_timeout", "heartbeat", "linger", "connect_timeout")

# Where a numeric option stands: what makes an object with it, its name, whether None is good, whether it has fractions.
NUMBERS: list[tuple[Callable[..., Any], str, bool, bool]] = [
    (lambda **o: CompletionPort(**o), "concurrency", False, False),
    (lambda **o: CompletionPort(**o), "capacity", False, False),
    (lambda **o: Semaphore(**{"initial": 1, "maximum": 2, **o}), "initial", False, False),
    (lambda **o: Semaphore(**{"initial": 1, "maximum": 2, **o}), "maximum", False, False),
    (lambda **o: ThreadPool(**o), "minimum", False, False),
    (lambda **o: ThreadPool(**o), "maximum", False, False),
    (lambda **o: ThreadPool(**o), "concurrency", False, False),
    (lambda **o: ThreadPool(**o), "queue_limit", False, False),
    (lambda **o: ThreadPool(**o), "idle_limit", True, True),
    (lambda **o: Executor(**o), "max_workers", True, False),
    (lambda **o: Executor(**o), "queue_limit", False, False),
    (lambda **o: Executor(**o), "max_tasks_per_worker", True, False),
    (lambda **o: Executor(**o), "exit_timeout", True, True),
    (lambda **o: Client(ENDPOINT, **o), "timeout", True, True),
    (lambda **o: Client(ENDPOINT, **o), "connect_timeout", True, True),
    (lambda **o: Client(ENDPOINT, **o), "max_calls", False, False),
    (lambda **o: Client(ENDPOINT, **o), "retries", False, False),
    (lambda **o: Client(ENDPOINT, **o), "retry_budget", False, False),
    (lambda **o: Client(ENDPOINT, **o), "pipe_window", False, False),
    (lambda **o: Server(ENDPOINT, **o), "workers", False, False),
    (lambda **o: Server(ENDPOINT, **o), "max_calls", False, False),
    (lambda **o: Server(ENDPOINT, **o), "pipe_window", False, False),
    (lambda **o: Server(ENDPOINT, **o), "max_body_bytes", False, False),
    (lambda **o: Server(ENDPOINT, **o), "max_unread_bytes", False, False),
    (lambda **o: Server(ENDPOINT, **o), "max_client_calls", False, False),
    (lambda **o: Server(ENDPOINT, **o), "max_client_bytes", False, False),
    (lambda **o: Server(ENDPOINT, **o), "max_waiting_bytes", False, False),
    (lambda **o: Server(ENDPOINT, **o), "stuck_after", False, True),
] + [
    (make, name, name == OFF, name in FRACTIONS)
    for make, names in (
        (lambda **o: Client(ENDPOINT, **o), (*COUNTS, *FRACTIONS[:-1])),
        (lambda **o: Server(ENDPOINT, **o), (*COUNTS, *FRACTIONS)),
        (lambda **o: LinkOptions(**o), (*COUNTS, *FRACTIONS)),
    )
    for name in names
]

CONSTRUCTORS = (CompletionPort, Semaphore, ThreadPool, Executor, Client, Server, LinkOptions)


@pytest.mark.parametrize(("make", "name", "optional", "fractions"), NUMBERS)
def test_a_number_that_is_none(make: Callable[..., Any], name: str, optional: bool, fractions: bool) -> None:
    """What is no number, or out of range, is refused by the constructor; the error names the option and the value."""
    for wrong in NO_NUMBERS + ([] if fractions else [1.5, math.inf]) + ([] if optional else [None]):
        with pytest.raises((TypeError, ValueError, EngineError), match=name) as caught:
            make(**{name: wrong})
        assert isinstance(caught.value, EngineError), (name, wrong)


def test_every_numeric_option_is_tried() -> None:
    """No constructor has an option that is said to be a number and is not among those tried."""
    tried = {name for _, name, _, _ in NUMBERS}
    for constructor in CONSTRUCTORS:
        for parameter in inspect.signature(constructor).parameters.values():
            if parameter.annotation in (int, float, int | None, float | None):
                assert parameter.name in tried, (constructor, parameter.name)


@pytest.mark.parametrize("name", ["minimum", "workers"])
def test_threads_without_end(name: str) -> None:
    """A number of threads that no system starts is refused."""
    with pytest.raises(InvalidParameter, match=name):
        Server(ENDPOINT, workers=2**70) if name == "workers" else ThreadPool(2**70, 2**71)


def test_budget_without_end() -> None:
    """A budget that no float can hold is refused."""
    with pytest.raises(InvalidParameter, match="retry_budget"):
        Client(ENDPOINT, retry_budget=10**400)


@pytest.mark.parametrize("make", [Client, Server])
class TestOptionsOfTheTransport:
    """Options that client and server hand on."""

    def test_one_that_there_is_not(self, make: Any) -> None:
        """An option that there is not is refused by the constructor, naming it and those that there are."""
        with pytest.raises(InvalidArgumentType, match="'hartbeat'.*heartbeat"):
            make(ENDPOINT, hartbeat=1)

    def test_one_of_its_own_that_is_written_otherwise(self, make: Any) -> None:
        """The constructor's own options are among those that may be meant, and that it names."""
        with pytest.raises(
            InvalidArgumentType, match=r"no option 'max_cals' \(did you mean 'max_calls'\?\).*heartbeat"
        ):
            make(ENDPOINT, max_cals=1)

    @pytest.mark.parametrize("option", ["curve", "context"])
    def test_of_another_type(self, make: Any, option: str) -> None:
        """Keys that are none, and a context that is none, are refused by the constructor."""
        wrong: Any
        for wrong in ({"public_key": "x"}, "x", 3, Odd(), [], True):
            with pytest.raises(EndpointError, match=f"{option} must be"):
                make(ENDPOINT, **{option: wrong})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"public_key": b"x"}, "public_key"), ({"secret_key": None}, "secret_key"), ({"server_key": 3}, "server_key"),
        ({"allowed": "text"}, "allowed"), ({"allowed": 3}, "allowed"), ({"allowed": [b"x"]}, "allowed"),
        ({"public_key": "short"}, "public_key"), ({"secret_key": "s" * 41}, "secret_key"),
        ({"server_key": '"' * 40}, "server_key"), ({"allowed": ["k"]}, "allowed"),
    ],
)  # fmt: skip
def test_keys(keys: dict[str, Any], said: str) -> None:
    """A key that is none is refused where it is given, and so is a pair that is none; a list of clients may be of any
    kind.
    """
    public, secret = Curve.new_keys()
    other, _ = Curve.new_keys()
    with pytest.raises(EndpointError, match=said) as caught:
        Curve(**{"public_key": public, "secret_key": secret, **keys})
    assert secret not in str(caught.value)
    with pytest.raises(EndpointError, match="pair"):
        Curve(other, secret)
    assert Curve(public, secret, allowed=[other]).allowed == frozenset([other])  # type: ignore[arg-type]  # it is allowed


class Nothing(Interface):
    @operation
    def nothing(self) -> int: ...
    @operation
    def abort(self, status: int) -> int: ...
    @operation
    def fail(self, status: int) -> int: ...


class Routines:
    def nothing(self) -> int:
        return 0

    def fail(self, status: int) -> int:
        raise CallError("of its own", status=status)

    @manager
    def abort(self, call: Any, status: int) -> None:
        try:
            call.abort(status)
        except InvalidParameter:
            call.complete(status)


class TestServers:
    """What a server is told beside numbers."""

    @pytest.mark.parametrize("option", ["tracebacks", "authorize", "pool", "name"])
    def test_options(self, option: str) -> None:
        """An option of another type is refused by the constructor: "no" is not False."""
        wrong: Any
        for wrong in ("no", 1, Odd(), [], {}):
            if option != "name" or not isinstance(wrong, str):
                with pytest.raises(InvalidArgumentType, match=option):
                    Server(ENDPOINT, **{option: wrong})

    @pytest.mark.parametrize("option", ["auto_listen", "secure_only", "local_only", "no_cache", "security"])
    def test_conditions(self, option: str) -> None:
        """So is a condition of `register`."""
        with Server(ENDPOINT) as server:
            wrong: Any
            for wrong in ("no", 1, Odd(), []):
                with pytest.raises(InvalidArgumentType, match=option):
                    server.register(Nothing, Routines(), **{option: wrong})

    def test_limits(self) -> None:
        """So is a limit."""
        with Server(ENDPOINT) as server:
            wrong: Any
            for wrong in (True, "1", 1.5, Odd(), math.nan, -1):
                for option in ("max_calls", "max_request_bytes"):
                    with pytest.raises(EngineError, match=option):
                        server.register(Nothing, Routines(), **{option: wrong})
                with pytest.raises(EngineError, match="max_calls"):
                    server.listen(max_calls=wrong)

    def test_flags(self) -> None:
        """So is what says whether to wait."""
        with Server(ENDPOINT) as server, Client(ENDPOINT) as client:
            wrong: Any
            for wrong in ("no", 1, Odd(), None):
                for action, option in (
                    (server.listen, "wait"), (server.unregister, "wait"), (server.unregister, "run_down"),
                ):  # fmt: skip
                    with pytest.raises(InvalidArgumentType, match=option):
                        action(**{option: wrong})
                if wrong is not None:  # That is the default, which is not the same for every client.
                    with pytest.raises(InvalidArgumentType, match="causal"):
                        client.bind(Nothing, causal=wrong)

    def test_unregistering_what_is_none(self) -> None:
        """So is an interface that is none."""
        with Server(ENDPOINT) as server:
            wrong: Any
            for wrong in (3, Odd(), [], int):
                with pytest.raises(InvalidArgumentType, match="interface"):
                    server.unregister(wrong)

    @pytest.mark.parametrize("status", [997, 0])
    def test_a_status_that_says_nothing(self, status: int) -> None:
        """A server cannot end a call with success, or with 997, which says that it has not ended."""
        with Server(ENDPOINT) as server:
            server.register(Nothing, Routines())
            server.listen()
            with Client(ENDPOINT) as client:
                binding = client.bind(Nothing)
                assert binding.abort(status) == status
                with pytest.raises(CallError) as caught:
                    binding.fail(status)
                assert caught.value.status == Status.REMOTE_FAULT
                with pytest.raises(CallError) as caught:
                    binding.abort(4711)
                assert caught.value.status == 4711


NO_FLAGS: list[Any] = [1, 0, "x", "", None, 2.0, [], Odd()]


def polled(flag: Any) -> None:
    """Poll a port."""
    with CompletionPort() as port:
        port.get_many(timeout=0, alertable=flag)


class TestFlags:
    """A truth value is True or False: what only counts as one is refused where it is given, and nothing happens."""

    @pytest.mark.parametrize(
        ("name", "function"),
        [
            ("manual_reset", lambda flag: Event(manual_reset=flag)),
            ("signaled", lambda flag: Event(signaled=flag)),
            ("initially_owned", lambda flag: Mutex(initially_owned=flag)),
            ("manual_reset", lambda flag: WaitableTimer(manual_reset=flag)),
            ("alertable", lambda flag: Mutex().wait(0, alertable=flag)),
            ("alertable", lambda flag: wait_any([Mutex()], 0, alertable=flag)),
            ("alertable", lambda flag: wait_all([Mutex()], 0, alertable=flag)),
            ("alertable", lambda flag: signal_and_wait(Semaphore(0, 1), Mutex(), 0, alertable=flag)),
            ("alertable", lambda flag: polled(flag)),
            ("alertable", lambda flag: sleep(0, alertable=flag)),
            ("remove", lambda flag: WaitPacket().cancel(remove=flag)),
            ("cancel", lambda flag: CleanupGroup().close_members(flag)),
            ("runs_long", lambda flag: Environment(runs_long=flag).check()),
            ("persistent", lambda flag: Environment(persistent=flag).check()),
            ("inherit_context", lambda flag: Environment(inherit_context=flag).check()),
        ],
    )  # fmt: skip
    def test_of_the_engine(self, name: str, function: Callable[[Any], object]) -> None:
        """Those of objects, of waits and of environments."""
        for wrong in NO_FLAGS:
            with pytest.raises(InvalidArgumentType, match=f"{name} must be True or False"):
                function(wrong)

    def test_of_the_pool(self) -> None:
        """That of waits for callbacks."""
        with ThreadPool(0, 1) as pool, Work(print, pool=pool) as work:
            for wrong in NO_FLAGS:
                for wait in (work.wait, pool.stop):
                    with pytest.raises(InvalidArgumentType, match="cancel_pending must be"):
                        wait(0, cancel_pending=wrong)

    @pytest.mark.parametrize(
        "endpoint", [ENDPOINT, f"ipc://@callport-arguments-{os.getpid()}"], ids=["loopback", "ipc"]
    )
    def test_of_a_call(self, endpoint: str) -> None:
        """A call that is cancelled by halves goes on, and the others of its connection too."""
        with Server(endpoint) as server:
            server.register(Nothing, Routines())
            server.listen()
            with Client(endpoint, timeout=LIMIT) as client:
                binding = client.bind(Nothing)
                for wrong in NO_FLAGS:
                    call = binding.nothing.begin()
                    with pytest.raises(InvalidArgumentType, match="abort must be"):
                        call.cancel(abort=wrong)
                    assert (call.result(LIMIT), binding.nothing()) == (0, 0)
                assert client.statistics().connections == 1


WRONG: list[Any] = [Odd(), "x", b"x", -1, 1.5, math.nan, [], {}, 3, 2**70, None, int]
# What other parameters get.
GOOD: dict[str, Any] = {
    "function": print, "callback": print, "due": 3600.0, "seconds": 0.0, "timeout": 0, "initial": 1, "maximum": 2,
    "count": 1, "name": "wrong", "priority": 1, "objects": (), "fn": print,
}  # fmt: skip


def refused(function: Callable[..., Any], stack: ExitStack) -> Iterator[str]:
    """Call `function` with something wrong for each of its parameters; yield what it raises that it must not."""
    parameters = [
        parameter for parameter in inspect.signature(function).parameters.values()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]  # fmt: skip
    for parameter in parameters:
        for wrong in WRONG:
            if parameter.name in ("timeout", "seconds", "dwMilliseconds") and wrong in (1.5, 3, 2**70, None):
                continue  # It would wait.
            args, options = [], {}
            for other in parameters:
                value = wrong if other is parameter else GOOD.get(other.name, 1)
                if other is not parameter and other.default is not other.empty and other.name != "timeout":
                    continue
                if other.kind is other.POSITIONAL_ONLY:
                    args.append(value)
                else:
                    options[other.name] = value
            try:
                made = function(*args, **options)
            except (EngineError, TypeError, ValueError, RuntimeError):
                continue
            except BaseException as error:
                yield f"{function.__qualname__}({parameter.name}={wrong!r}): {error!r}"
                continue
            if not isinstance(made, type) and hasattr(made, "close") and hasattr(type(made), "__exit__"):
                stack.callback(made.close)


MAKERS: dict[str, Callable[[], Any]] = {
    "CompletionPort": CompletionPort,
    "Event": Event,
    "Semaphore": lambda: Semaphore(1, 2),
    "WaitableTimer": WaitableTimer,
    "WaitPacket": WaitPacket,
    "CleanupGroup": CleanupGroup,
    "ThreadPool": lambda: ThreadPool(0, 1),
    "Work": lambda: Work(print),
    "Timer": lambda: Timer(print),
    "Wait": lambda: Wait(print),
    "Server": lambda: Server("loopback://test-wrong-arguments"),
    "Client": lambda: Client(ENDPOINT),
}


class TestAnything:
    """Wrong objects everywhere."""

    @pytest.mark.parametrize(
        "function",
        [
            Environment, Work, Timer, Wait, Io, WaitableTimer, Event, Mutex, apc, queue_apc, register_wait, manager,
            sleep, signal_and_wait, submit_callback, wait_all, wait_any, operation, current_call,
        ],
    )  # fmt: skip
    def test_functions(self, function: Callable[..., Any]) -> None:
        """A public function that is given a wrong object says so: it never stumbles over what the object has not."""
        with ExitStack() as stack:
            assert list(refused(function, stack)) == []

    @pytest.mark.parametrize("name", MAKERS)
    def test_methods(self, name: str) -> None:
        """So does a public method."""
        with ExitStack() as stack:
            thing = MAKERS[name]()
            if hasattr(thing, "close"):
                stack.callback(thing.close)
            for attribute in dir(type(thing)):
                inner = attribute.startswith("_") or attribute in ("close", "stop")
                function = inspect.getattr_static(type(thing), attribute)
                if inner or not inspect.isfunction(function) or inspect.iscoroutinefunction(function):
                    continue
                assert list(refused(getattr(thing, attribute), stack)) == []

    def test_environments(self) -> None:
        """Each field of an environment is looked at when an object is made of it."""
        for field in ("pool", "cleanup_group", "cancel_callback", "finalization", "priority"):
            wrong: Any
            for wrong in (Odd(), "x", 3, []):
                with pytest.raises(EngineError, match=field):
                    Work(print, environment=Environment(**{field: wrong}))

    def test_wait_packets(self) -> None:
        """A wait packet is associated with a port."""
        with Event() as event:
            wrong: Any
            for wrong in (Odd(), "x", 3, None, CompletionPort):
                with pytest.raises(InvalidArgumentType, match="port"):
                    WaitPacket().associate(wrong, event)

    @pytest.mark.parametrize("name", [name for name in engine.win32.__all__ if name[0].isupper()])
    def test_windows_names(self, name: str) -> None:
        """So does a function of `engine.win32`."""
        function = getattr(engine.win32, name)
        if not inspect.isfunction(function) or name == "ExitThread":
            return
        with ExitStack() as stack:
            assert list(refused(function, stack)) == []
