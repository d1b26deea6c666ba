"""Metadata that travels with an answer."""

from collections.abc import Callable
from typing import Any

import pytest

from engine import (
    Call,
    EngineError,
    InvalidArgumentType,
    InvalidAsyncHandle,
    RemoteFault,
    Server,
    ServerCall,
    current_call,
    manager,
)
from engine.testing import LIMIT, wait_until

TEXTS = {"served-by": "pluto", "größe": "12"}


class Routines:
    """Answers in several ways, each with texts beside."""

    def __init__(self) -> None:
        self.after: list[type[BaseException]] = []

    def plain(self, value: object) -> object:
        current_call().set_trailing_metadata(TEXTS)
        return value

    def twice(self) -> None:
        current_call().set_trailing_metadata({"first": "1"})
        current_call().set_trailing_metadata(TEXTS)

    async def later(self, value: object) -> object:
        current_call().set_trailing_metadata(TEXTS)
        return value

    @manager
    def by_hand(self, call: ServerCall, value: object) -> None:
        call.set_trailing_metadata(TEXTS)
        call.complete(value)
        try:
            call.set_trailing_metadata({})
        except InvalidAsyncHandle as error:
            self.after.append(type(error))

    def fail(self) -> None:
        current_call().set_trailing_metadata(TEXTS)
        raise ValueError("no")

    @manager
    def abort(self, call: ServerCall) -> None:
        call.set_trailing_metadata(TEXTS)
        call.abort(4711, "no")

    def too_much(self) -> None:
        current_call().set_trailing_metadata({"x": "x" * 100_000})
        raise ValueError("no")

    def wrong(self, value: Any) -> None:
        current_call().set_trailing_metadata(value)

    def nothing(self) -> None:
        pass


@pytest.fixture
def routines() -> Routines:
    """The routines that are served."""
    return Routines()


@pytest.fixture
def binding(servers: Callable[..., Server], clients: Callable[..., Any], endpoint: str, routines: Routines) -> Any:
    """A client's binding to them."""
    server = servers(endpoint)
    server.register("routines", routines)
    server.listen()
    return clients(server.endpoint, max_message_bytes=70_000).bind("routines")


class TestTrailingMetadata:
    """What a routine has set is there with the answer, however it came about."""

    @pytest.mark.parametrize("operation", ["plain", "later", "by_hand"])
    @pytest.mark.parametrize("value", [7, [1, "x"], b"x" * 66_000], ids=["deferrable", "encoded", "large"])
    def test_with_a_result(self, binding: Any, operation: str, value: object) -> None:
        """It can be read before the result is collected, and afterwards; the result is what it is without."""
        call: Call[Any] = getattr(binding, operation).begin(value)
        assert call.wait(LIMIT)
        assert call.trailing_metadata == TEXTS
        assert call.complete() == value
        assert call.trailing_metadata == TEXTS

    def test_with_a_failure(self, binding: Any) -> None:
        """It comes with an exception, and with an abort."""
        for operation, status in (("fail", 0xE0000001), ("abort", 4711)):
            call = getattr(binding, operation).begin()
            with pytest.raises(RemoteFault) as caught:
                call.result(LIMIT)
            assert caught.value.status == status
            assert call.trailing_metadata == TEXTS

    def test_that_is_too_much(self, binding: Any) -> None:
        """A failure whose texts are more than the client takes comes without them."""
        call = binding.too_much.begin()
        with pytest.raises(RemoteFault, match="no"):
            call.result(LIMIT)
        assert call.trailing_metadata == {}

    def test_set_again(self, binding: Any) -> None:
        """The texts that were set last count."""
        call = binding.twice.begin()
        call.result(LIMIT)
        assert call.trailing_metadata == TEXTS

    def test_none(self, binding: Any) -> None:
        """Without texts, and before the answer, there are none; nor are those of the handle's former call, once it
        was made ready for another.
        """
        call = binding.plain.begin(1)
        call.result(LIMIT)
        binding.nothing.begin(handle=call)
        call.result(LIMIT)
        assert call.trailing_metadata == {}
        binding.plain.begin(1, handle=call)
        call.result(LIMIT)
        call.initialize()
        assert call.trailing_metadata == {}
        assert Call().trailing_metadata == {}

    def test_after_the_answer(self, binding: Any, routines: Routines) -> None:
        """Once the call was closed it is too late: 1914."""
        binding.by_hand(1)
        wait_until(lambda: routines.after == [InvalidAsyncHandle])

    @pytest.mark.parametrize("value", [None, 5, ["x"], {"x": 1}])
    def test_that_are_no_texts(self, binding: Any, value: object) -> None:
        """What is no dict of texts is refused (87)."""
        with pytest.raises(EngineError) as caught:
            binding.wrong(value)
        assert caught.value.status == InvalidArgumentType.status
