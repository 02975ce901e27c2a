"""What is waiting to be computed: one thing at a time, in the order in which it came, and no more than there are places."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["ClosedError", "FullError", "Queue"]

T = TypeVar("T")

_WEIGHT = 0.2
"""Of the time that was measured last, beside those before it."""
_LONGEST_WAIT = 60


class FullError(Exception):
    """There is no place; there may be one after some seconds.

    Args:
        seconds: How many.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class ClosedError(Exception):
    """Nothing is computed any more."""


class Queue:
    """A thread that computes, and the places before it. Its methods are called from one event loop, but for `wait`.

    Args:
        places: For what is being sent, waits, or is computed.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.taken = 0
        self.served = 0
        self._thread = ThreadPoolExecutor(1, "translating")
        self._seconds = 0.0
        self._awaited: set[asyncio.Future[Any]] = set()
        self._is_closed = False

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place; it is taken before what is computed with is read into memory, which bounds that too.

        Raises:
            FullError: When there is none.
            ClosedError: When the queue is closed.
        """
        if self._is_closed:
            raise ClosedError
        if self.taken >= self.places:
            raise FullError(min(_LONGEST_WAIT, max(1, math.ceil(self.taken * self._seconds))))
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def compute(self, function: Callable[[], T]) -> T:
        """What a function returns, once it is its turn; who is canceled before gives up its turn.

        Raises:
            ClosedError: When the queue is closed first.
        """
        held = [function]  # what the thread has not come to keeps nothing in memory once it is canceled

        def timed() -> T:
            began = time.monotonic()
            try:
                return held.pop()()
            finally:
                took = time.monotonic() - began
                self._seconds += (_WEIGHT if self._seconds else 1) * (took - self._seconds)

        if self._is_closed:
            raise ClosedError
        job = self._thread.submit(timed)
        try:
            result = await self.unless_closed(asyncio.wrap_future(job))
        finally:
            if job.cancelled():
                held.clear()
        self.served += 1
        return result

    async def unless_closed(self, awaitable: Awaitable[T]) -> T:
        """Wait for something, but no longer than the queue is open.

        Raises:
            ClosedError: When the queue is closed first.
        """
        future = asyncio.ensure_future(awaitable)
        self._awaited.add(future)
        try:
            return await future
        except asyncio.CancelledError:
            if self._is_closed:
                raise ClosedError from None
            raise
        finally:
            self._awaited.discard(future)

    def close(self) -> None:
        """Begin nothing more; all that wait are told."""
        self._is_closed = True
        for future in self._awaited:
            future.cancel()
        self._thread.shutdown(wait=False)

    def wait(self) -> None:
        """Wait for what had been begun when the queue was closed."""
        self._thread.shutdown()
