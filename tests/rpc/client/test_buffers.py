"""`[out]` and `[in, out]` buffers: supplied by the caller, filled on complete. Section 1.5."""

from typing import Any

import pytest

from engine import BadStubData, InvalidArgumentType, Status
from engine.testing import LIMIT

from ..helpers import Bench

LARGE = bytes(range(256)) * 1024  # Travels out of band.


class TestFilledOnComplete:
    """When outputs are valid, and when they are touched."""

    @pytest.mark.parametrize("data", [b"short", b"", LARGE], ids=["in band", "empty", "out of band"])
    def test_an_out_buffer(self, any_bench: Bench, data: bytes) -> None:
        """Completing fills the buffer from its beginning, and returns the part that was filled."""
        buffer = bytearray(b"\xff" * (len(data) + 10))
        call = any_bench.probe.reversed_bytes.begin(data, into=buffer)
        assert call.wait(LIMIT)
        assert bytes(buffer) == b"\xff" * len(buffer), "nothing is touched before completing"
        part = call.complete()
        assert bytes(part) == data[::-1] and type(part) is memoryview
        assert bytes(buffer) == data[::-1] + b"\xff" * 10

    @pytest.mark.parametrize("size", [100, 300_000])
    def test_an_in_out_buffer(self, any_bench: Bench, size: int) -> None:
        """The same buffer may be the argument."""
        buffer = bytearray(i % 251 for i in range(size))
        wanted = bytes(buffer)[::-1]
        assert bytes(any_bench.probe.reversed_bytes(buffer, into=buffer)) == wanted
        assert buffer == wanted

    def test_a_part_of_a_buffer(self, bench: Bench) -> None:
        """A view is filled where it is."""
        buffer = bytearray(10)
        bench.probe.reversed_bytes(b"abc", into=memoryview(buffer)[4:8])
        assert bytes(buffer) == b"\0\0\0\0cba\0\0\0"

    def test_several_buffers(self, bench: Bench) -> None:
        """A tuple fills a tuple; None leaves a part as it is."""
        first, last = bytearray(3), bytearray(5)
        parts = bench.probe.echo([b"abc", 7, b"de"], into=(first, None, last))
        assert (first, last) == (b"abc", b"de\0\0\0")
        assert (bytes(parts[0]), parts[1], bytes(parts[2])) == (b"abc", 7, b"de")

    def test_an_array(self, bench: Bench) -> None:
        """An array is filled with an array of its own type, and with no other."""
        numpy: Any = pytest.importorskip("numpy")
        target = numpy.zeros(4, "<i4")
        bench.probe.echo(numpy.arange(1, 4, dtype="<i4"), into=target)
        assert target.tolist() == [1, 2, 3, 0]
        with pytest.raises(BadStubData, match="float64"):
            bench.probe.echo(numpy.ones(1, "<f8"), into=target)
        assert target.tolist() == [1, 2, 3, 0]

    def test_a_call_that_failed(self, bench: Bench, key: str) -> None:
        """It leaves the buffers alone."""
        buffer = bytearray(b"before")
        call = bench.failed(key, into=buffer)
        with pytest.raises(Exception, match="aborted"):
            call.complete()
        assert buffer == b"before"

    @pytest.mark.parametrize("data", [b"longer", LARGE], ids=["in band", "out of band"])
    def test_a_result_that_does_not_fit(self, bench: Bench, data: bytes) -> None:
        """It is 122, final, and nothing is filled; of several buffers, none."""
        buffer = bytearray(b"short")
        call = bench.probe.reversed_bytes.begin(data, into=buffer)
        assert call.wait(LIMIT)
        with pytest.raises(BadStubData) as caught:
            call.complete()
        assert caught.value.status == Status.BUFFER_TOO_SMALL == 122
        assert buffer == b"short"
        other = bytearray(b"abc")
        with pytest.raises(BadStubData):
            bench.probe.echo([b"xyz", b"longer"], into=(other, buffer))
        assert other == b"abc" and buffer == b"short"

    @pytest.mark.parametrize(("value", "into"), [(5, bytearray(9)), ([b"a"], (bytearray(1), bytearray(1)))])
    def test_a_result_that_is_no_buffer(self, bench: Bench, value: Any, into: Any) -> None:
        """It is 1783, and nothing is filled."""
        with pytest.raises(BadStubData) as caught:
            bench.probe.echo(value, into=into)
        assert caught.value.status == 1783

    @pytest.mark.parametrize("into", [b"readonly", "text", 5, (bytearray(1), b"readonly"), [bytearray(1)]])
    def test_what_is_no_writable_buffer(self, bench: Bench, into: Any) -> None:
        """It is refused, and nothing is sent."""
        with pytest.raises(InvalidArgumentType, match="into"):
            bench.probe.echo.begin(b"", into=into)
        assert bench.client.statistics().calls_begun == 0

    def test_a_binding_without_a_contract(self, bench: Bench) -> None:
        """It takes buffers too."""
        buffer = bytearray(3)
        bench.client.bind("test.Probe").reversed_bytes(b"abc", into=buffer)
        assert buffer == b"cba"
