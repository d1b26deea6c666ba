"""How long a function runs: learned from its runs, so that a slow one is known before it is called.

Theory of operation. The mean of the runs is weighted exponentially. What is measured is wall time, and a thread that
waited meanwhile for a processor, or for the interpreter lock, has a long run of the quickest function. That happens to
one function seldom twice in a row. So what counts as quick becomes slow by a second long run at the earliest, and no
run counts for more than `MOST`; quick runs are believed at once. A function that a thread is inside when the monitor
takes its slot or its client away is slow at once.

A pool has such a record for its callbacks, a server for its routines: before a slow one starts, others are let past.
"""

from typing import Final

import msgspec

SLOW: Final = 200e-6  # Seconds. A hand-over between threads costs ~30 us on each side; below a few it does not pay.
NOTABLE: Final = SLOW / 10  # What takes less is not worth a call of `learn`: most functions never get a mean.
MOST: Final = 8 * SLOW  # Seconds that a run counts for at most: two long ones are enough, eight quick ones undo all.
WEIGHT: Final = 1 / 4  # Of the newest run in the mean.


class RunTime(msgspec.Struct, gc=False):
    """How long the runs of a function take.

    Args: `slow` is what is expected until the first run, and always if it is `fixed`.

    Not guarded: a lost update loses one sample.
    """

    # Whether the next run is expected to take more than `SLOW`.
    slow: bool = False
    fixed: bool = False
    # Seconds: a run that took no longer teaches nothing, and `learn` need not be called.
    notable: float = NOTABLE
    # Seconds, 0 unless notable. Processor time is measured only while it is slow, by who wants to know.
    mean: float = 0.0
    cpu: float = 0.0
    # Whether the last run was a long one, so that another one is believed.
    suspected: bool = False

    def __post_init__(self) -> None:
        if self.slow:
            self.notable = 0.0

    def learn(self, seconds: float, cpu: float | None = None) -> None:
        """Take a run into account, or what several took on the average."""
        if self.fixed:
            return
        long = seconds > SLOW
        if not long or self.suspected or self.slow:
            mean = self.mean + (min(seconds, MOST) - self.mean) * WEIGHT
            self.mean = mean if mean > NOTABLE else 0.0
            self.slow = mean > SLOW
        self.suspected = long
        self.notable = 0.0 if long or self.mean else NOTABLE
        if cpu is not None:
            self.cpu += (cpu - self.cpu) * WEIGHT

    def overran(self) -> None:
        """A thread was found away in it: the next runs are expected to be slow."""
        if not self.fixed:
            self.mean, self.slow, self.notable = MOST, True, 0.0

    def computes(self) -> bool:
        """Whether it is slow because it uses the processor: many such at once would not be faster."""
        return self.cpu > SLOW
