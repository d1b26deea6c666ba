"""What a server keeps of the descriptors of its process, without using them up."""

import pytest

from engine.testing import wait_until
from transport import bind, descriptors
from transport.descriptors import Reserve


@pytest.mark.parametrize("watch", [True, False])
def test_few_for_a_moment(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, watch: bool) -> None:
    """Each time that a server accepts nobody it warns, however soon descriptors are free again: before it goes on."""
    found = [100]
    monkeypatch.setattr(descriptors, "left", lambda: found[0])
    link = bind("loopback://few-for-a-moment")
    lock = link.lock
    shut: list[int] = []
    warned: list[bool] = []

    def reopen() -> bool:
        warned.append("5 of" in caplog.text)
        return True

    reserve = Reserve("ipc://here", lock, lambda: shut.append(found[0]), reopen, watch=watch)
    with lock:
        found[0] = 5
        while not shut:
            reserve.accepted(0)
        found[0] = 100  # Shutting has closed some connections, and others were accepted just before.
        reserve.accepted(0)
    wait_until(lambda: warned)
    assert warned == [True]
    assert caplog.text.count("file descriptors are left") == 1
    with lock:
        reserve.close()
        link.close()
