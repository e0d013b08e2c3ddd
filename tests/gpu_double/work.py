"""Queued work: a graph of operations that is executed, in a random but repeatable order, only when the host waits.

An operation depends on the one before it in its stream and on the events that its stream waited for. Beside the random
order there is a proof: every operation carries a vector clock, and two that touch the same bytes, one of them writing,
must be ordered by it, or the later call is a race, whatever the order of this run would have been.
"""

from collections.abc import Callable, Iterable
from random import Random

from tests.gpu_double.memory import POISON, Allocation, Region, Touch

Clock = dict[int, int]  # chain -> how far


class Op:
    """One piece of work. chain, time: its place among operations that are ordered by themselves, e.g. one stream's.

    poisons: regions of `writes` that hold nothing of value until the operation is done.
    """

    __slots__ = (
        "blocked",
        "chain",
        "clock",
        "done",
        "followers",
        "keeps",
        "name",
        "poisons",
        "reads",
        "run",
        "time",
        "writes",
    )

    def __init__(
        self,
        name: str,
        run: Callable[[], None] | None,
        reads: tuple[Region, ...] = (),
        writes: tuple[Region, ...] = (),
        poisons: tuple[Region, ...] = (),
        keeps: object = None,
    ) -> None:
        self.name = name
        self.run = run
        self.reads, self.writes, self.poisons = reads, writes, poisons
        self.keeps = keeps  # what must not be collected before the operation is done
        self.chain, self.time = -1, 0
        self.clock: Clock = {}
        self.blocked = 0
        self.done = False
        self.followers: list[Op] = []

    def __str__(self) -> str:
        return self.name


class Queue:
    """Every operation of a device that is not done yet.

    seed: of the order in which unordered work runs. on_race: called with two operations and the allocation, when they
    are not ordered. on_failure: called with an operation and what it raised.
    """

    def __init__(
        self,
        seed: int,
        on_race: Callable[[Op, Op, Allocation], None],
        on_failure: Callable[[Op, Exception], None],
    ) -> None:
        self.order: list[str] = []  # names of operations as they were executed, the last 1,000
        self._random = Random(seed)
        self._on_race, self._on_failure = on_race, on_failure
        self._ready: list[Op] = []
        self._waiting = 0
        self.lost = False  # the device failed: what is left in the queue has no effect
        self._host: Clock = {}  # what the host knows to be done
        self._settled: set[int] = set()
        self._times: Clock = {}
        self._chains = 0

    def new_chain(self) -> int:
        self._chains += 1
        return self._chains

    @property
    def pending(self) -> int:
        return len(self._ready) + self._waiting

    @property
    def unfinished(self) -> list[str]:
        """Names of operations that are ready to run or wait."""
        found: dict[int, Op] = {id(op): op for op in self._ready}
        todo = list(self._ready)
        while todo:
            for follower in todo.pop().followers:
                if id(follower) not in found:
                    found[id(follower)] = follower
                    todo.append(follower)
        return [op.name for op in found.values() if op.run is not None]

    def submit(self, op: Op, chain: int, after: Iterable[Op]) -> Op:
        """Queue `op` as the next of `chain`, behind every operation of `after`."""
        op.chain = chain
        clock = dict(self._host)
        for other in after:
            if not self.is_known(other):
                _merge(clock, other.clock)
            if not other.done:
                other.followers.append(op)
                op.blocked += 1
        op.time = clock[chain] = self._times[chain] = self._times.get(chain, 0) + 1
        op.clock = clock
        for region in op.reads:
            self._touch(op, region, writes=False)
        for region in op.writes:
            self._touch(op, region, writes=True)
        self._poison_early(op)
        if op.blocked:
            self._waiting += 1
        else:
            self._make_ready(op)
        return op

    def wait_for(self, ops: Iterable[Op]) -> None:
        """Execute ready work in a random order until all of `ops` are done; the host then knows that they are."""
        targets = list(ops)
        for target in targets:
            while not target.done:
                self._step()
            _merge(self._host, target.clock)

    def go_on(self) -> None:
        """Execute one piece of ready work, if there is any."""
        if self._ready:
            self._step()

    def wait_for_all(self) -> None:
        while self._ready:
            self._step()
        self._host = dict(self._times)

    def settle_chain(self, chain: int) -> None:
        """A stream or graph is gone and its work is done: vector clocks need not carry it any more."""
        self._settled.add(chain)
        self._host.pop(chain, None)
        self._times.pop(chain, None)

    def is_known(self, op: Op) -> bool:
        """Does the host know that `op` is done: did it wait for it, or for something behind it?"""
        return op.chain in self._settled or self._host.get(op.chain, 0) >= op.time

    def _step(self) -> None:
        ready = self._ready
        place = self._random.randrange(len(ready))
        ready[place], ready[-1] = ready[-1], ready[place]
        op = ready.pop()
        if op.run is not None and not self.lost:
            self.order.append(op.name)
            if len(self.order) > 1000:
                del self.order[:500]
            try:
                op.run()
            except Exception as error:  # the engine's own, or an access to memory that is gone
                self._on_failure(op, error)
        op.done = True
        for region in (*op.reads, *op.writes):
            if region.allocation is not None:
                region.allocation.users -= 1
        op.run = op.keeps = None
        for follower in op.followers:
            follower.blocked -= 1
            if follower.blocked == 0:
                self._waiting -= 1
                self._make_ready(follower)
        op.followers = []

    def _make_ready(self, op: Op) -> None:
        # From now on the device may have begun: whoever reads a result before it is done reads poison.
        for region in op.poisons:
            _poison(region)
        self._ready.append(op)

    def _poison_early(self, op: Op) -> None:
        """Results that no earlier work touches are worthless from the call on, and not only once it may begin."""
        if op.blocked:
            for region in op.poisons:
                if region.allocation is not None and region.allocation.users == 1:
                    _poison(region)

    def _touch(self, op: Op, region: Region, *, writes: bool) -> None:
        allocation = region.allocation
        if allocation is None:
            return
        allocation.users += 1
        start, stop = region.start, region.start + region.size
        kept: list[Touch] = []
        for touch in allocation.touches:
            other = touch.op
            if self.is_known(other):
                continue  # everything from now on is behind it
            covered = False
            if other is not op and touch.start < stop and start < touch.stop and (writes or touch.writes):
                if op.clock.get(other.chain, 0) < other.time:
                    self._on_race(other, op, allocation)
                # What this one writes over need not be remembered: who is behind this one is behind that one.
                covered = writes and start <= touch.start and touch.stop <= stop
            if not covered:
                kept.append(touch)
        kept.append(Touch(start, stop, writes, op))
        allocation.touches = kept


def _poison(region: Region) -> None:
    if region.allocation is None or region.allocation.data is not None:
        region.bytes().fill(POISON)


def _merge(clock: Clock, other: Clock) -> None:
    for chain, time in other.items():
        if clock.get(chain, 0) < time:
            clock[chain] = time
