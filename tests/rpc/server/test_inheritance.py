"""What calls that are made inside a routine take over from the call being served."""

from collections.abc import Callable
from contextlib import suppress

from engine import CallTimeout

from ..helpers import limits, present
from .conftest import Watched

LONG = 1000.0


class TestTime:
    """The shorter of the two times counts."""

    def test_of_the_outer_call(self, any_watched: Watched) -> None:
        """A call without a limit of its own has the time that is left of the outer one's."""
        left = any_watched.watch.nested_time(any_watched.endpoint, None, None, timeout=LONG)
        assert 0 < present(left) <= LONG

    def test_none(self, watched: Watched) -> None:
        """Without a limit on either there is none."""
        assert watched.watch.nested_time(watched.endpoint, None, None) is None

    def test_own_is_shorter(self, watched: Watched) -> None:
        """A limit of its own counts if it is shorter."""
        assert 0 < present(watched.watch.nested_time(watched.endpoint, LONG, None, timeout=2 * LONG)) <= LONG

    def test_own_is_longer(self, watched: Watched) -> None:
        """It does not if it is longer."""
        assert 0 < present(watched.watch.nested_time(watched.endpoint, 2 * LONG, None, timeout=LONG)) <= LONG

    def test_client_default(self, watched: Watched) -> None:
        """A limit that the inner client has for all its calls is one of its own."""
        assert 0 < present(watched.watch.nested_time(watched.endpoint, None, LONG, timeout=2 * LONG)) <= LONG
        assert 0 < present(watched.watch.nested_time(watched.endpoint, None, 2 * LONG, timeout=LONG)) <= LONG

    def test_expired(self, watched: Watched, key: str) -> None:
        """An inner call ends with the outer one's time, though nobody answers it."""
        for limit in limits(0.2, 2.0, 20.0):
            held = f"{key}-{limit}"
            with suppress(CallTimeout):  # Unless the answer, which follows at once, is there first.
                watched.watch.nested_hold(watched.endpoint, held, timeout=limit)
            try:
                assert watched.desk.result(held, timeout=limit) == 1818
                break
            except CallTimeout:
                pass  # The outer one had not begun by then.


class TestMetadata:
    """The outer call's texts, overlaid by the inner one's own."""

    def test_of_the_outer_call(self, any_watched: Watched) -> None:
        """Texts of the outer call come along."""
        inner = any_watched.watch.nested_metadata(any_watched.endpoint, None, {}, metadata={"trace": "1"})
        assert inner == {"trace": "1"}

    def test_of_the_outer_connection(self, watched_clients: Callable[..., Watched], watched: Watched) -> None:
        """So do those of the connection that the outer call came by."""
        other = watched_clients(watched.endpoint, metadata={"who": "me", "trace": "0"})
        inner = other.watch.nested_metadata(watched.endpoint, None, {}, metadata={"trace": "1"})
        assert inner == {"who": "me", "trace": "1"}

    def test_overlaid(self, watched: Watched) -> None:
        """Texts of the inner call's own, and of its client, take their place."""
        inner = watched.watch.nested_metadata(
            watched.endpoint, {"a": "own"}, {"b": "connection"}, metadata={"a": "outer", "b": "outer", "c": "outer"}
        )
        assert inner == {"a": "own", "b": "connection", "c": "outer"}

    def test_in_a_coroutine(self, watched: Watched) -> None:
        """A coroutine routine passes them on as well."""
        assert watched.watch.nested_coroutine(watched.endpoint, metadata={"trace": "2"}) == {"trace": "2"}

    def test_after_the_answer(self, watched: Watched, key: str) -> None:
        """A routine that was answered passes on metadata, and no limit: its caller waits no longer."""
        watched.watch.nested_later(watched.endpoint, key, timeout=LONG, metadata={"trace": "3"})
        assert watched.desk.result(key) == [None, {"trace": "3"}]

    def test_outside_of_routines(self, watched: Watched) -> None:
        """A call made anywhere else takes over nothing."""
        assert watched.watch.metadata() == {}
        assert watched.watch.time_left() is None
