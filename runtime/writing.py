"""Files read and written by threads while the device computes on."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")

_THREADS = min(4, os.cpu_count() or 1)
WAITING = 4 * _THREADS  # at most: memory does not grow if the disk is slower than the device


class Writer:
    """A few threads that write files: encoding an image leaves Python's lock free.

    Inside a `with` block, `submit` hands over a piece of work and waits only if too much is
    waiting. An error of the work is raised by a later `submit`, or at the block's end, where all
    that was handed over is done. If the block ends with an error, what is not begun is left out.

    Args:
        threads: How many; with one, the work is done in its order.
        waiting: Pieces of work that are not done yet, at most.
    """

    def __init__(self, threads: int = _THREADS, waiting: int = WAITING) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="writer")
        self._waiting: deque[Future[Any]] = deque()
        self._most = waiting

    def submit(self, work: Callable[..., object], *arguments: Any) -> None:
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= self._most):
            self._waiting.popleft().result()
        self._waiting.append(self._threads.submit(work, *arguments))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            for future in self._waiting:
                future.result()


def read_ahead(
    read: Callable[[Item], Read], items: Iterable[Item], ahead: int = 2
) -> Iterator[tuple[Item, Read]]:
    """Each of `items` with what `read` gives of it, in order, read by threads.

    Args:
        read: Reads one. Its error is raised where its turn is.
        items: What to read.
        ahead: How many are read before their turn, at most.
    """
    waiting: deque[tuple[Item, Future[Read]]] = deque()
    with ThreadPoolExecutor(ahead, thread_name_prefix="reader") as threads:
        try:
            for item in items:
                waiting.append((item, threads.submit(read, item)))
                if len(waiting) > ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
