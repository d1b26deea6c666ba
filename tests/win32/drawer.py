"""A service that keeps state behind context handles, written with the Windows names."""

import threading
from collections import Counter, defaultdict

from engine import Context, blocking, current_call
from engine.testing import LIMIT, Gate, wait_until
from engine.win32 import RpcSsContextLockExclusive, RpcSsContextLockShared


class Sheet:
    """The state behind a handle."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[str] = []


class Keeping:
    """Implements `Drawer`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gates: defaultdict[str, Gate] = defaultdict(Gate)
        self._dropped: Counter[str] = Counter()

    def _gate(self, key: str) -> Gate:
        with self._lock:
            return self._gates[key]

    def _run_down(self, sheet: Sheet) -> None:
        with self._lock:
            self._dropped[sheet.name] += 1

    def open(self, name: str) -> Context[Sheet]:
        return current_call().open_context(Sheet(name), self._run_down)

    def write(self, sheet: Context[Sheet], line: str) -> int:
        sheet.state.lines.append(line)
        return len(sheet.state.lines)

    def study(self, sheet: Context[Sheet], key: str) -> list[int]:
        with blocking():
            self._gate(key).pass_through()
        locked = RpcSsContextLockExclusive(None, sheet)
        with blocking():
            self._gate(f"{key} leaving").pass_through()
        return [locked, RpcSsContextLockShared(None, sheet)]

    def close(self, sheet: Context[Sheet]) -> None:
        sheet.close()

    def arrived(self, key: str, count: int) -> None:
        with blocking():
            self._gate(key).wait_for_arrivals(count)

    def go_on(self, key: str) -> None:
        self._gate(key).open()

    def dropped(self, name: str) -> None:
        with blocking():
            wait_until(lambda: self._dropped[name] == 1, LIMIT)
