"""Files written by threads while the device computes on."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

_THREADS = min(4, os.cpu_count() or 1)
_WAITING = 4 * _THREADS  # at most: memory does not grow if the disk is slower than the device


class Writer:
    """A few threads that write files: encoding an image leaves Python's lock free.

    Inside a `with` block, `submit` hands over a piece of work and waits only if too much is
    waiting. An error of the work is raised by a later `submit`, or at the block's end, where all
    that was handed over is done. If the block ends with an error, what is not begun is left out.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="writer")
        self._waiting: deque[Future[Any]] = deque()

    def submit(self, work: Callable[..., object], *arguments: Any) -> None:
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= _WAITING):
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
