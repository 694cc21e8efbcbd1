"""What the user sees while it runs: messages, a line for the stage, the time left for the loop."""

import logging
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bdl.runtime.errors import UserError
from bdl.runtime.output import print_text, rank_in_environment, speak_to_nobody
from bdl.runtime.stopping import stop_request

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.table import Table

log = logging.getLogger("bdl")
_library_warnings = logging.getLogger("py.warnings")
_handlers: list[logging.Handler] = []  # ours, of those two
_ONE_AT_A_TIME = threading.Lock()  # consoles of runs, of this process

_SECONDS_BETWEEN_LINES = 10.0
_MOST_KEPT = 1000  # messages that wait for a log file


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 12 min 30 s, 3 h 20 min, 2 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def counted(number: int, noun: str) -> str:
    """How many there are of what `noun` names in the singular: 1 photo, 2 photos."""
    words = noun.split(" ")
    return f"{number} {noun if number == 1 else ' '.join([words[0] + 's', *words[1:]])}"


class _LogFile(logging.FileHandler):
    """A log file whose errors (a full disk) are errors of the run, not a traceback on the way."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise


class _Kept(logging.Handler):
    """The last messages before there is a log file."""

    def __init__(self) -> None:
        super().__init__()
        self.records: deque[logging.LogRecord] = deque(maxlen=_MOST_KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class _StandardOutput(logging.StreamHandler):
    """Standard output, which whoever reads it may close (`| head`): the run goes on in log.txt.
    Another error (a full disk) is one of the run, as a log file's is."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exception(), BrokenPipeError):
            speak_to_nobody()
        elif isinstance(sys.exception(), OSError):
            raise
        else:
            super().handleError(record)


class Console:
    """Messages of the main process; the others are silent.

    On a terminal bars move, one for the stage and one for the run; elsewhere a plain line comes
    every ten seconds. What is said also goes to the file given to `log_to`. `verbosity` -1 shows
    only problems and results, 1 also each stage's settings, each entry of the curves, and warnings
    of libraries, which otherwise go to the file alone.
    """

    def __init__(self, speaking: bool = True, verbosity: int = 0) -> None:
        from rich.console import Console as RichConsole  # here: the log alone does without

        self.speaking = speaking
        self._rich = RichConsole(stderr=False, quiet=not speaking, highlight=False)
        self.on_terminal = self._rich.is_terminal and speaking
        self.quiet = verbosity < 0
        _remove(_handlers)
        log.setLevel(
            logging.CRITICAL if not speaking else logging.DEBUG if verbosity > 0 else logging.INFO
        )
        log.propagate = False
        handler: logging.Handler
        if self.on_terminal:
            from rich.logging import RichHandler

            handler = RichHandler(
                console=self._rich, show_time=False, show_level=False, show_path=False
            )
        else:
            handler = _StandardOutput()
        handler.setLevel(logging.WARNING if self.quiet else logging.DEBUG)
        handler.addFilter(lambda record: not getattr(record, "shown", False))
        logging.captureWarnings(True)
        _library_warnings.propagate = False
        _add(handler, log)
        _add(
            handler if speaking and verbosity > 0 else logging.NullHandler(),
            _library_warnings,
        )
        self._kept = _Kept()
        _add(self._kept, log)
        self._said: set[str] = set()
        self.loop_left: float | None = None  # seconds left for the stages after the present one
        self.loop_place = (0, 0)  # stages behind us, and of how many
        self.on_progress: Callable[[], None] | None = None  # called as a task goes on

    def log_to_none(self) -> None:
        """What is said from now on goes to no file before `log_to` is called."""
        _remove([handler for handler in _handlers if isinstance(handler, _LogFile)])
        if self._kept not in _handlers:
            _add(self._kept, log)

    def warnings(self) -> list[str]:
        """The warnings since the beginning, or since `log_to_none`, each once and in one line."""
        warned = [r for r in self._kept.records if r.levelno >= logging.WARNING]
        texts = (" ".join(r.getMessage().split()).removeprefix("warning: ") for r in warned)
        return list(dict.fromkeys(texts))

    def log_to(self, file: Path) -> None:
        """What is said goes to the end of `file`, too, and to no file before it; what was said
        before to no file goes there first."""
        if self.speaking:
            _remove([handler for handler in _handlers if isinstance(handler, _LogFile)])
            file.parent.mkdir(parents=True, exist_ok=True)
            handler = _LogFile(file, encoding="utf-8", errors="backslashreplace")
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
            _add(handler, log, _library_warnings)
            _remove([self._kept])
            while self._kept.records:
                handler.handle(self._kept.records.popleft())

    def say(self, text: str) -> None:
        """Print a result, quiet or not."""
        if self.speaking:
            print_text(text)
            log.info("%s", text, extra={"shown": True})

    def once(self, text: str) -> None:
        """Log a text, unless it was logged before: several runs may look at the same data."""
        if text not in self._said:
            self._said.add(text)
            log.info("%s", text)

    def show(self, table: "Table", text: str) -> None:
        """The same with a `table` for the terminal; elsewhere, and in the log file, `text` says
        what it says."""
        if self.on_terminal:
            self._rich.print(table)
            log.info("%s", text, extra={"shown": True})
        else:
            self.say(text)

    @contextmanager
    def track(
        self, title: str, total: int, done: int = 0, unit: str = "steps", brief: bool = False
    ) -> Iterator["Task"]:
        """A task of `total` units of which `done` are behind us; of a `brief` one no line is left
        unless it takes so long that somebody may wonder."""
        task = Task(self, title, total, done, unit, brief)
        if not self.on_terminal or self.quiet:
            yield task
            task.close()
            return
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
        )
        with Progress(*columns, console=self._rich, transient=True) as bar:
            task.bar, task.bar_id = bar, bar.add_task(title, total=total, completed=done, text="")
            behind, stages = self.loop_place
            if stages > 1:
                task.run_id = bar.add_task("whole run", total=stages, completed=behind, text="")
            yield task
        task.close()


def _add(handler: logging.Handler, *loggers: logging.Logger) -> None:
    """Let messages go to a handler of ours, beside those that the calling program has added."""
    _handlers.append(handler)
    for logger in loggers:
        logger.addHandler(handler)


def _remove(handlers: Sequence[logging.Handler]) -> None:
    """Let no messages go to handlers of ours any more."""
    for handler in [handler for handler in handlers if handler in _handlers]:
        _handlers.remove(handler)
        log.removeHandler(handler)
        _library_warnings.removeHandler(handler)
        if isinstance(handler, _LogFile):
            handler.close()


@contextmanager
def logging_restored() -> Iterator[None]:
    """Inside, consoles may be made; how the calling program logs and warns is afterwards as it was
    before."""
    loggers = (log, _library_warnings)
    before = [
        (item, item.handlers[:], item.filters[:], item.level, item.propagate) for item in loggers
    ]
    earlier = _handlers[:]
    captured = warnings.showwarning.__module__ == logging.__name__
    try:
        with warnings.catch_warnings():
            yield
    finally:
        _remove(_handlers)
        _handlers[:] = earlier
        for logger, handlers, filters, level, propagate in before:
            logger.handlers[:], logger.filters[:] = handlers, filters
            logger.setLevel(level)
            logger.propagate = propagate
        logging.captureWarnings(captured)


@contextmanager
def spoken(verbosity: int = 0) -> Iterator[Console]:
    """A console while it lasts, silent but in the main process; how the calling program logs and
    warns is afterwards as it was before.

    Raises:
        UserError: Another thread has one.
    """
    if not _ONE_AT_A_TIME.acquire(blocking=False):
        raise UserError(
            "another run is under way in this process; both would use its signals and its log; "
            "run one after the other, or each in a process of its own"
        )
    try:
        with logging_restored():
            yield Console(rank_in_environment() == 0, verbosity)
    finally:
        _ONE_AT_A_TIME.release()


class Task:
    """One stage's progress; see Console.track."""

    def __init__(
        self, console: Console, title: str, total: int, done: int, unit: str, brief: bool
    ) -> None:
        self.console, self.title, self.total, self.done, self.unit, self.brief = (
            console,
            title,
            total,
            done,
            unit,
            brief,
        )
        self.bar: Progress | None = None
        self.bar_id: TaskID | None = None
        self.run_id: TaskID | None = None
        self._values = ""
        self._line_done: int | None = None  # what was done when the last line was written
        self._begun_at = self._line_at = time.monotonic()
        self._done_before = done

    def advance(
        self, count: int = 1, values: dict[str, float] | None = None, stoppable: bool = True
    ) -> None:
        """`count` more units are done; `values` are shown until newer ones come.

        Raises Stopped if a signal asked for it and the run can go on from here (`stoppable`).
        """
        self.done += count
        if values:
            self._values = "  ".join(f"{name} {value:.3g}" for name, value in values.items())
            log.debug("  %s  step %d  %s", self.title, self.done, self._values)
        if self.bar is not None and self.bar_id is not None:
            self.bar.update(self.bar_id, completed=self.done, text=self._text())
            if self.run_id is not None:
                behind, stages = self.console.loop_place
                share = behind + self.done / max(1, self.total)
                self.bar.update(self.run_id, completed=share, text=self._run_text(behind, stages))
        elif time.monotonic() - self._line_at > _SECONDS_BETWEEN_LINES:
            self.line()
        if self.console.on_progress is not None:
            self.console.on_progress()
        if stoppable:
            stop_request.raise_if_noted()

    @property
    def rate(self) -> float:
        """Units a second in this process."""
        return (self.done - self._done_before) / max(time.monotonic() - self._begun_at, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes; None while nothing is done in this process."""
        if self.done == self._done_before:
            return None
        return (self.total - self.done) / self.rate

    def line(self) -> None:
        self._line_at, self._line_done = time.monotonic(), self.done
        log.info("  %s  %s", self.title, self._text())

    def close(self) -> None:
        """The last line, unless it has just been written; of a brief task only after others."""
        if self._line_done != self.done and not (self.brief and self._line_done is None):
            self.line()

    def _run_text(self, behind: int, stages: int) -> str:
        text = f"{behind}/{stages} stages"
        if self.console.loop_left is None or self.left is None:
            return text
        return f"{text}  about {duration(self.left + self.console.loop_left)} left"

    def _text(self) -> str:
        text = f"{self.done}/{self.total} {self.unit}"
        left = self.left
        if left is not None:
            text += f"  {self.rate:.3g}/s"
            if self.done < self.total:
                text += f"  {duration(left)} left"
                if self.console.loop_left is not None and self.run_id is None:
                    text += f" (whole run: about {duration(left + self.console.loop_left)})"
        return f"{text}  {self._values}".rstrip()
