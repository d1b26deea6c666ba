"""What calls that are made inside a routine take over from the call being served."""

from typing import Any

import pytest

from engine import CallTimeout

from ..helpers import limits

LONG = 1000.0


class TestTime:
    """The shorter of the two times counts."""

    def test_of_the_outer_call(self, any_bench: Any) -> None:
        """A call without a limit of its own has the time that is left of the outer one's."""
        left = any_bench.watch.nested_time(any_bench.endpoint, None, None, timeout=LONG)
        assert 0 < left <= LONG

    def test_none(self, bench: Any) -> None:
        """Without a limit on either there is none."""
        assert bench.watch.nested_time(bench.endpoint, None, None) is None

    def test_own_is_shorter(self, bench: Any) -> None:
        """A limit of its own counts if it is shorter."""
        assert 0 < bench.watch.nested_time(bench.endpoint, LONG, None, timeout=2 * LONG) <= LONG

    def test_own_is_longer(self, bench: Any) -> None:
        """It does not if it is longer."""
        assert 0 < bench.watch.nested_time(bench.endpoint, 2 * LONG, None, timeout=LONG) <= LONG

    def test_client_default(self, bench: Any) -> None:
        """A limit that the inner client has for all its calls is one of its own."""
        assert 0 < bench.watch.nested_time(bench.endpoint, None, LONG, timeout=2 * LONG) <= LONG
        assert 0 < bench.watch.nested_time(bench.endpoint, None, 2 * LONG, timeout=LONG) <= LONG

    def test_expired(self, bench: Any, key: str) -> None:
        """An inner call ends with the outer one's time, though nobody answers it."""
        for limit in limits(0.2, 2.0, 20.0):
            held = f"{key}-{limit}"
            with pytest.raises(CallTimeout):
                bench.watch.nested_hold(bench.endpoint, held, timeout=limit)
            try:
                assert bench.desk.result(held, timeout=limit) == 1818
                break
            except CallTimeout:
                pass  # The outer one had not begun by then.


class TestMetadata:
    """The outer call's texts, overlaid by the inner one's own."""

    def test_of_the_outer_call(self, any_bench: Any) -> None:
        """Texts of the outer call come along."""
        inner = any_bench.watch.nested_metadata(any_bench.endpoint, None, {}, metadata={"trace": "1"})
        assert inner == {"trace": "1"}

    def test_of_the_outer_connection(self, benches: Any, bench: Any) -> None:
        """So do those of the connection that the outer call came by."""
        other = benches(bench.endpoint, metadata={"who": "me", "trace": "0"})
        inner = other.watch.nested_metadata(bench.endpoint, None, {}, metadata={"trace": "1"})
        assert inner == {"who": "me", "trace": "1"}

    def test_overlaid(self, bench: Any) -> None:
        """Texts of the inner call's own, and of its client, take their place."""
        inner = bench.watch.nested_metadata(
            bench.endpoint, {"a": "own"}, {"b": "connection"}, metadata={"a": "outer", "b": "outer", "c": "outer"}
        )
        assert inner == {"a": "own", "b": "connection", "c": "outer"}

    def test_in_a_coroutine(self, bench: Any) -> None:
        """A coroutine routine passes them on as well."""
        assert bench.watch.nested_coroutine(bench.endpoint, metadata={"trace": "2"}) == {"trace": "2"}

    def test_after_the_answer(self, bench: Any, key: str) -> None:
        """A routine that was answered passes on metadata, and no limit: its caller waits no longer."""
        bench.watch.nested_later(bench.endpoint, key, timeout=LONG, metadata={"trace": "3"})
        assert bench.desk.result(key) == [None, {"trace": "3"}]

    def test_outside_of_routines(self, bench: Any) -> None:
        """A call made anywhere else takes over nothing."""
        assert bench.watch.metadata() == {}
        assert bench.watch.time_left() is None
