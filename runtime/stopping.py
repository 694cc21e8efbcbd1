"""SIGINT and SIGTERM: a stop at the next place where nothing is lost."""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SAME = 2.0  # seconds within which a further signal repeats the first: a terminal sends to all


class Stopped(BaseException):
    """The run was asked to stop and is at a place from which it can go on.

    Like KeyboardInterrupt no Exception, so that nothing on the way takes it for an error.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def status(self) -> int:
        """The exit status that shells expect: 130 after SIGINT, 143 after SIGTERM."""
        return 128 + self.signum


class StopRequest:
    """Whether a signal asked this process to stop; signals are the process's, so is this.

    A signal is only noted. Loops ask for it where they can stop: after a step, once its state is
    saved, and after each image. A second signal, later, stops at once.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.children: list[subprocess.Popen] = []  # processes of this run, told of it too
        self._noted_at = 0.0
        self._at_once = False

    def raise_if_noted(self) -> None:
        if self.signum:
            raise Stopped(self.signum)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are noted inside. Off the main thread, where Python has none, nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.signum, self.children = 0, []
        before = {number: signal.signal(number, self._note) for number in _NUMBERS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, where nothing can be lost (a question is asked), a signal raises Stopped."""
        self.raise_if_noted()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, signum: int, frame: FrameType | None) -> None:
        for child in self.children:
            child.send_signal(signum)
        again = self.signum and time.monotonic() - self._noted_at > _SAME
        if again or self._at_once:
            raise Stopped(signum)
        if not self.signum:
            self.signum, self._noted_at = signum, time.monotonic()


_NUMBERS = (signal.SIGINT, signal.SIGTERM)

stop_request = StopRequest()


def shield_loader_worker(number: int) -> None:
    """For loader processes: signals to the whole group are the training process's to answer.

    It ends its workers itself, by SIGTERM where they do not listen, so a second one is obeyed.
    """

    def let_pass(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, let_pass)
