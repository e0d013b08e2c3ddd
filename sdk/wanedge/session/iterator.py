"""Answers for asyncio: one at a time, and nothing is taken before it is handed on."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from wanedge.session.exchange import Claim, Exchange
from wanedge.units import AgentUnit

if TYPE_CHECKING:
    import asyncio


class UnitIterator:
    """`async for unit in session.units()`. Ends when the session ends or is closed.

    A cancelled or timed-out wait has taken nothing. The right to take answers ends with `break`, the last unit, or
    `aclose`. Any event loop will do, another one each time.

    check_open: raises what the session has to say when it failed. handed_on: is given each unit that leaves.
    """

    def __init__(
        self, exchange: Exchange, check_open: Callable[[], None], handed_on: Callable[[AgentUnit], None]
    ) -> None:
        self._exchange, self._check_open, self._handed_on = exchange, check_open, handed_on
        self._claim = Claim()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AgentUnit:
        import asyncio  # 40 ms of imports for those who await, who have it already

        exchange, loop = self._exchange, asyncio.get_running_loop()
        exchange.claim(self._claim)
        while True:
            arrived = asyncio.Event()

            def listener(arrived: "asyncio.Event" = arrived) -> None:
                loop.call_soon_threadsafe(arrived.set)

            with exchange.changed:
                if units := exchange.take(1):
                    self._handed_on(units[0])
                    return units[0]
                try:
                    if exchange.ended or exchange.closing:
                        raise StopAsyncIteration
                    self._check_open()
                except BaseException:  # the exception keeps this iteration alive, and the iteration is over
                    exchange.release(self._claim)
                    raise
                exchange.listen(listener)
            try:
                await arrived.wait()
            finally:
                exchange.unlisten(listener)

    async def aclose(self) -> None:
        """Give up the right to take answers; what was not handed on is still there."""
        self._exchange.release(self._claim)
