"""What one call sets in context variables is not seen by another: each runs in a context of its own, empty at first."""

import asyncio
import contextvars
import decimal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest

from engine import (
    CallAttributes,
    Client,
    CompletionPort,
    Interface,
    OutPipe,
    Server,
    ServerCall,
    current_call,
    default_pool,
    manager,
    operation,
)
from engine.testing import LIMIT

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("TENANT", default="nobody")


def enter(tenant: str) -> list[Any]:
    """Return what is set here, and set something else."""
    found = [TENANT.get(), decimal.getcontext().prec]
    TENANT.set(tenant)
    decimal.getcontext().prec = 3
    return found


class Tenant(msgspec.Struct):
    """An argument whose type has a check that sets what it is."""

    name: str

    def __post_init__(self) -> None:
        TENANT.set(self.name)


class Tenants(Interface, id="tests.Tenants"):
    """Each returns what it finds set, and sets something else."""

    def routine(self, tenant: str) -> list[Any]: ...
    def managed(self, tenant: str) -> list[Any]: ...
    def task(self, tenant: str) -> list[Any]: ...
    def checked(self, tenant: Tenant) -> list[Any]: ...
    def failing(self, tenant: str) -> None: ...
    def handed_on(self, tenant: str) -> list[Any]: ...
    def found(self) -> list[Any]: ...

    @operation
    def generator(self, tenant: str, items: OutPipe[list[Any]]) -> None:
        """Push what is set, several times."""

    @operation
    def source(self, tenant: str, items: OutPipe[list[Any]]) -> None:
        """The same from a task."""


class Serving:
    """Serves `Tenants`."""

    def routine(self, tenant: str) -> list[Any]:
        return enter(tenant)

    @manager
    def managed(self, call: ServerCall, tenant: str) -> None:
        call.complete(enter(tenant))

    async def task(self, tenant: str) -> list[Any]:
        found = enter(tenant)
        await asyncio.sleep(0)
        assert TENANT.get() == tenant and current_call()
        # What the task starts elsewhere has a copy of its context, and knows whose call it is.
        assert await asyncio.to_thread(lambda: (TENANT.get(), bool(current_call()))) == (tenant, True)
        return found

    def checked(self, tenant: Tenant) -> list[Any]:
        return [TENANT.get(), decimal.getcontext().prec]

    def failing(self, tenant: str) -> None:
        enter(tenant)
        raise LookupError

    def handed_on(self, tenant: str) -> list[Any]:
        """What a routine submits to a pool has a copy of its context."""
        TENANT.set(tenant)
        seen: list[Any] = []
        done = threading.Event()
        default_pool().submit(lambda: (seen.append(TENANT.get()), done.set()))
        assert done.wait(LIMIT)
        return seen

    def found(self) -> list[Any]:
        return [TENANT.get(), decimal.getcontext().prec]

    def generator(self, tenant: str, items: Any) -> Iterator[list[Any]]:
        yield enter(tenant)
        yield [TENANT.get(), decimal.getcontext().prec]

    async def source(self, tenant: str, items: Any) -> AsyncIterator[list[Any]]:
        yield enter(tenant)
        await asyncio.sleep(0)
        yield [TENANT.get(), decimal.getcontext().prec]


EMPTY = ["nobody", decimal.DefaultContext.prec]


@pytest.fixture
def tenants(servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str) -> Any:
    """A binding to a server with one worker, so that every call could see what the one before has set."""
    server = servers(endpoint, workers=1)
    server.register(Tenants, Serving())
    server.listen()
    return clients(server.endpoint).bind(Tenants)


class TestCalls:
    """Routines of each kind."""

    @pytest.mark.parametrize("kind", ["routine", "managed", "task"])
    def test_one_after_the_other(self, tenants: Any, kind: str) -> None:
        """A call finds nothing set, whatever those before it have set, be they of its kind or of another."""
        begun = [getattr(tenants, kind).begin(str(number)) for number in range(20)]
        assert [call.result(LIMIT) for call in begun] == [EMPTY] * 20
        assert tenants.routine("another") == tenants.task("another") == tenants.managed("another") == EMPTY

    def test_with_options(self, tenants: Any) -> None:
        """So it is for calls that have a handle from the beginning."""
        assert [tenants.routine(str(number), timeout=LIMIT) for number in range(5)] == [EMPTY] * 5

    def test_tasks_side_by_side(self, tenants: Any) -> None:
        """Tasks that run at the same time have a context each."""
        begun = [tenants.task.begin(str(number)) for number in range(20)]
        assert [call.result(LIMIT) for call in begun] == [EMPTY] * 20

    @pytest.mark.parametrize("kind", ["generator", "source"])
    def test_streams(self, tenants: Any, kind: str) -> None:
        """A generator has one context from its first element to its last, and leaves nothing behind."""
        for number in range(3):
            assert list(getattr(tenants, kind).stream(str(number))) == [EMPTY, [str(number), 3]]
        assert tenants.found() == EMPTY

    def test_checks_of_types(self, tenants: Any) -> None:
        """What the check of an argument's type sets is not found by the routine, nor by later ones."""
        assert tenants.checked(Tenant("one")) == EMPTY
        begun = [tenants.checked.begin(Tenant(str(number))) for number in range(20)]
        assert [call.result(LIMIT) for call in begun] == [EMPTY] * 20
        assert tenants.found() == EMPTY

    def test_after_a_failure(self, tenants: Any) -> None:
        """A routine that raises leaves nothing behind either."""
        with pytest.raises(Exception, match="LookupError"):
            tenants.failing("one")
        assert tenants.found() == EMPTY

    def test_what_a_routine_hands_on(self, tenants: Any) -> None:
        """What a routine submits to a pool sees what it has set."""
        assert tenants.handed_on("mine") == ["mine"]

    def test_not_the_main_thread(self, tenants: Any) -> None:
        """Nor is what the program has set where the server was made, or where its loop was started."""
        TENANT.set("the program's")
        try:
            assert tenants.found() == tenants.task("x") == EMPTY
        finally:
            TENANT.set("nobody")


class TestCallbacks:
    """What a server runs besides routines."""

    def test_security(self, servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str) -> None:
        """A security callback has a context of its own for each call that it is asked about."""
        found: list[Any] = []

        def admit(attributes: CallAttributes) -> bool:
            found.append(enter("judged"))
            return True

        server = servers(endpoint, workers=1)
        server.register(Tenants, Serving(), security=admit, no_cache=True)
        server.listen()
        binding = clients(server.endpoint).bind(Tenants)
        assert [binding.found() for _ in range(3)] == [EMPTY] * 3
        assert found == [EMPTY] * 3

    def test_rundown(self, servers: Callable[..., Server], endpoint: str, listener: CompletionPort) -> None:
        """So has a rundown routine."""

        class Opening:
            def open(self) -> Any:
                return current_call().open_context(object(), lambda state: listener.post(enter("gone")))

            found = Serving.found

        server = servers(endpoint, workers=1)
        server.register("opening", Opening())
        server.listen()
        for _ in range(3):
            with Client(server.endpoint) as client:
                client.bind("opening").open()
            assert listener.get(LIMIT).key == EMPTY
            with Client(server.endpoint) as client:
                assert client.bind("opening").found() == EMPTY


@pytest.fixture
def listener() -> Iterator[CompletionPort]:
    """A port to hear by."""
    with CompletionPort() as port:
        yield port
