"""A bounded first-in, first-out queue of computations, which run one at a time in a thread."""

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
"""Weight of the latest duration in the moving average."""
_LONGEST_WAIT = 60


class FullError(Exception):
    """The queue is full.

    Args:
        seconds: Estimated seconds until there is a free place.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class ClosedError(Exception):
    """The queue is closed."""


class Queue:
    """A queue with a worker thread. All methods but `wait` must be called from one event loop.

    Args:
        places: Maximum number of reserved places: uploads, waiting computations, and the running one.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.waiting = 0
        self.served = 0
        self._thread = ThreadPoolExecutor(1, "translating")
        self._seconds = 0.0
        self._futures: set[asyncio.Future[Any]] = set()
        self._is_closed = False

    @contextmanager
    def reserve(self) -> Iterator[None]:
        """Reserve a place within the context. Reserve it before reading the input, so that memory is bounded too.

        Raises:
            FullError: When the queue is full.
            ClosedError: When the queue is closed.
        """
        if self._is_closed:
            raise ClosedError
        if self.waiting >= self.places:
            raise FullError(min(_LONGEST_WAIT, max(1, math.ceil(self.waiting * self._seconds))))
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def compute(self, function: Callable[[], T]) -> T:
        """Run a function in the worker thread, and return its result. Canceling removes it from the queue if it has not begun.

        Raises:
            ClosedError: When the queue is closed first.
        """
        pending = [function]  # so that a canceled function can be released before the thread reaches its job

        def timed() -> T:
            start = time.monotonic()
            try:
                return pending.pop()()
            finally:
                duration = time.monotonic() - start
                self._seconds += (_WEIGHT if self._seconds else 1) * (duration - self._seconds)

        if self._is_closed:
            raise ClosedError
        job = self._thread.submit(timed)
        try:
            result = await self.unless_closed(asyncio.wrap_future(job))
        finally:
            if job.cancelled():
                pending.clear()
        self.served += 1
        return result

    async def unless_closed(self, awaitable: Awaitable[T]) -> T:
        """Await something until the queue is closed.

        Raises:
            ClosedError: When the queue is closed first.
        """
        future = asyncio.ensure_future(awaitable)
        self._futures.add(future)
        try:
            return await future
        except asyncio.CancelledError:
            if self._is_closed:
                raise ClosedError from None
            raise
        finally:
            self._futures.discard(future)

    def close(self) -> None:
        """Start no further computation, and raise `ClosedError` in all callers that wait."""
        self._is_closed = True
        for future in self._futures:
            future.cancel()
        self._thread.shutdown(wait=False)

    def wait(self) -> None:
        """Wait for the computation that was running when the queue was closed."""
        self._thread.shutdown()
