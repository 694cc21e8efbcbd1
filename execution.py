"""A configured run: what of its stages is there, what is to be made, and the making of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdl.domains.check import check_problem
from bdl.domains.index import Index
from bdl.domains.problem import Problem, index_of
from bdl.pipeline import algorithm
from bdl.reports.results import REPORT, WARNINGS, Results, Row
from bdl.runtime.config import Config, load_config, to_yaml
from bdl.runtime.console import Console, counted, duration, log
from bdl.runtime.errors import UserError
from bdl.runtime.estimate import TimeLeft
from bdl.runtime.files import write_text
from bdl.runtime.live import Pace
from bdl.runtime.lock import OWNER, claimed
from bdl.runtime.output import rank_in_environment
from bdl.runtime.ownership import CONFIGURATION, RESULTS, require_free
from bdl.runtime.processes import is_child
from bdl.runtime.stage import Stage, flatten
from bdl.runtime.stopping import Stopped, stop_request
from bdl.runtime.store import (
    Entry,
    MadeOn,
    Store,
    describe_loss,
    read_manifest,
    require_consent,
)
from bdl.runtime.versions import versions
from bdl.segmentation.network_name import SMP, TIMM, require_known
from bdl.segmentation.stages import TrainedSegmenter

if TYPE_CHECKING:
    from bdl.runtime.run import Run

Planned = Callable[[], list[Entry]]
_LOG = "log.txt"
WRITES = (CONFIGURATION, RESULTS, REPORT, _LOG, WARNINGS, OWNER)  # in a run's folder itself
_SIGNATURE = "# The settings of the run in this folder, as bdl wrote them"


class InputsMissing(UserError):
    """A stage cannot be made by itself before others are.

    Args:
        name: Of the stage.
        missing: The others, in order; the last is one of its own inputs.
    """

    def __init__(self, name: str, missing: Sequence[Entry]) -> None:
        last = missing[-1]
        super().__init__(f"{name} needs {last.stage.name} ({last.reason})")
        self.missing = list(missing)


class Loop:
    """The stages of a configuration and the folder that they are made in.

    Args:
        config: The configuration.
        data: Its data sets.
        stages: Its stages, in order.
        console: What the user sees.

    Attributes:
        launched: Whether all processes of the run are there already, as in a run among others.
    """

    def __init__(
        self, config: Config, data: Problem, stages: Sequence[Stage], console: Console
    ) -> None:
        self.config, self.data, self.console = config, data, console
        self.launched = False
        self.stages = list(stages)
        self.store = Store(Path(config.out))
        self.results = Results(config, data, self.stages)

    @classmethod
    def of(
        cls,
        config: Config,
        console: Console,
        limit: int | None = None,
        dry: bool = False,
        index: Index | None = None,
    ) -> Loop:
        """The loop that a configuration states.

        Args:
            config: The configuration.
            console: What the user sees.
            limit: Each data set is cut off after so many samples.
            dry: Nothing is to be written.
            index: What is known of files; None: what is kept in the cache's or the run's folder,
                and is kept there from the first look on, so that no file is read twice for it.

        Raises:
            UserError: In the run's folder are files that a run would replace and none has made.
        """
        folder = Path(config.out)
        require_own_folder(config)
        index = index or index_of(config.data, folder, console, writing=not dry)
        data = Problem(config.data, folder, console, limit, index)
        return cls(config, data, algorithm(config, data), console)

    def run(
        self,
        from_stage: str | None = None,
        replaced: bool = False,
        others: Sequence[Path] = (),
        dry: bool = False,
    ) -> list[Row]:
        """Make all stages that are not there.

        Args:
            from_stage: Name of a stage to make again, with all that depends on it.
            replaced: Whether results of other settings may be replaced.
            others: Folders of runs that equal stages are taken from.
            dry: Print the plan only.

        Returns:
            A row for each network that was evaluated.
        """
        return self.follow(lambda: self.store.plan(self.stages, from_stage, replaced, others), dry)

    def run_single(
        self, name: str, again: bool = False, replaced: bool = False, dry: bool = False
    ) -> list[Row]:
        """Make one stage by itself, `again` even if it is finished; otherwise as `run`.

        Raises:
            UserError: There is no such stage.
            InputsMissing: What it is made from is not there.
        """
        return self.follow(lambda: self._plan_single(name, again, replaced), dry)

    def _plan_single(self, name: str, again: bool, replaced: bool) -> list[Entry]:
        """The plan for one stage: its inputs must be there, but for rendered data and networks
        trained elsewhere. Raises InputsMissing."""
        by_name = {stage.name: stage for stage in self.stages}
        if name not in by_name:
            raise UserError(
                f"no stage '{name}' with iterations={self.config.iterations} and "
                f"self_training_steps={self.config.self_training_steps}; "
                f"the stages are {', '.join(by_name)}"
            )
        stage = by_name[name]
        needed = _needed_by(stage)
        inputs = [given for given in self.stages if given.name in needed]
        plan = self.store.plan([*inputs, stage], name if again else None, replaced)
        if any(_is_to_be_made(entry) for entry in plan[:-1]):
            entries = {entry.stage.name: entry for entry in self.store.plan(self.stages)}
            missing: set[str] = set()
            asked = [stage]
            while asked:
                needed = _needed_by(asked.pop()) - missing
                new = [given for given in needed if _is_to_be_made(entries[given])]
                missing |= set(new)
                asked += [by_name[given] for given in new]
            raise InputsMissing(name, [entries[given] for given in by_name if given in missing])
        return plan

    def follow(self, planned: Planned, dry: bool = False) -> list[Row]:
        """Do what a plan says; nothing is touched before it is known to lose nothing unasked.

        Args:
            planned: Makes the plan; called again once the folder is this run's alone.
            dry: Print the plan only.
        """
        self.console.log_to_none()
        plan = planned()
        to_make = [entry.stage for entry in plan if entry.run]
        if to_make and rank_in_environment() == 0:
            _require_options(self.config)  # soon told, where files take minutes to look at
            # A plan is told where a network's weights cannot be fetched, too.
            trains = not dry and any(isinstance(stage, TrainedSegmenter) for stage in to_make)
            problems = find_problems(self.config, self.data, self.console, to_make, trains)
            if problems:
                first, others = problems[0], len(problems) - 1
                raise UserError(
                    f"{first} (and {others} more: `check` lists them)" if others else first
                )
        text = describe_plan(self.config, plan)
        if dry:
            self.console.say(text)
            return self.results.rows()
        log.info("%s", text)
        require_consent(self.store.folder, plan)
        # A child is waited for, whatever it finds: others may have worked here since.
        awaited = is_child() and not self.launched
        if awaited or any(entry.run or entry.source for entry in plan):
            self._make(planned)
        elif rank_in_environment() == 0:
            log.info("all %d stages are finished", len(plan))
            with claimed(self.store.folder):
                for stage in self.stages:
                    self.store.resume_publishing(stage)
                self._write_configuration()
                self.results.write()
            said = self.console.warnings()
            for line in (line for line in self.results.warnings() if line not in said):
                log.warning("warning: %s", line)
        return self.results.rows()

    def _write_configuration(self) -> None:
        file = self.store.folder / CONFIGURATION
        if not _says(file, self.config):  # what the user has added to it, such as comments, stays
            write_text(file, _signed(to_yaml(self.config)))

    def _make(self, planned: Planned) -> None:
        import torch

        from bdl.runtime.device import make_fabric
        from bdl.runtime.processes import joined, launched
        from bdl.runtime.run import Run

        matmul = torch.get_float32_matmul_precision()  # which is the calling program's, too
        try:
            fabric = make_fabric(self.config)
            with joined(fabric) if self.launched else launched(fabric):
                run = Run.of(self.config, self.store.folder, fabric, self.console)
                with self._claimed(run):
                    self._make_claimed(run, planned)
        finally:
            torch.set_float32_matmul_precision(matmul)

    def _make_claimed(self, run: Run, planned: Planned) -> None:
        import torch

        from bdl.runtime.compiling import require_compiler
        from bdl.runtime.replay import replay_needs

        plan = planned()  # as it is now that nobody else changes it
        require_consent(self.store.folder, plan)
        run.fabric.barrier()  # all processes have read the records before any is changed
        trains = any(entry.run and entry.stage.unit == "steps" for entry in plan)
        if run.compile and trains:
            require_compiler(run.fabric.device)
        if run.is_main:
            self._write_configuration()
            self.results.write_warnings(self.console.warnings())
            self.console.log_to(self.store.folder / _LOG)
            if run.replay and trains and (needed := replay_needs(run.fabric)):
                log.warning("warning: replay=true takes %s; steps are computed", needed)
            log.debug("%s", describe_values({**vars(self._made_on(run)), **versions()}))
            if self.data.cache is not None:
                self.data.cache.prepare()
        device = run.fabric.device
        # The calling program's draws are its own.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            self._make_stages(run, plan)

    @contextmanager
    def _claimed(self, run: Run) -> Iterator[None]:
        """Inside, the run's folder is this run's alone, and what was being moved is moved."""
        if not run.is_main:
            run.fabric.barrier()
            yield
            return
        with claimed(self.store.folder):
            for stage in self.stages:
                self.store.resume_publishing(stage)
                self.store.tidy(stage)
            run.fabric.barrier()
            yield

    def _make_stages(self, run: Run, plan: Sequence[Entry]) -> None:
        """The plan's stages one after the other; each is recorded as it is done."""
        time_left = TimeLeft()
        for entry in plan:
            manifest = read_manifest(self.store.folder_of(entry.stage))
            if manifest is not None and not entry.run:
                time_left.learn(entry.stage, manifest.seconds)
        to_do = [entry for entry in plan if entry.run or entry.source]
        to_make = [entry.stage for entry in to_do if entry.run]
        if len(to_make) > 1:  # a single one's own steps tell
            time_left.try_out(to_make, partial(_tried, run))
            seconds = time_left.of(to_make)
            if seconds is not None:
                log.info("all of it takes about %s", duration(seconds))
        with self.results.tracked(run.is_main) as track, self._stop_shown(run):
            for number, entry in enumerate(to_do):
                stop_request.raise_if_noted()
                log.info("[%d/%d] %s", number + 1, len(to_do), entry.stage.name)
                left = [later.stage for later in to_do[number:] if later.run]
                self.console.loop_left = time_left.of(left[1:] if entry.run else left)
                self.console.loop_place = (number, len(to_do))
                seconds = self._make_stage(run, entry, time_left.of(left))
                if entry.run:
                    time_left.learn(entry.stage, seconds)
                if run.is_main:
                    track(entry.stage)
                run.fabric.barrier()
        if run.is_main:
            self.results.write()

    @contextmanager
    def _stop_shown(self, run: Run) -> Iterator[None]:
        """Whatever stops the run inside, its page says so."""
        try:
            yield
        except BaseException as error:
            if run.is_main:
                known = isinstance(error, UserError | Stopped)
                with suppress(Exception):  # what stopped the run is told, not this
                    self.results.stop(str(error) if known else f"unexpected: {error!r}")
            raise

    def _make_stage(self, run: Run, entry: Entry, seconds_left: float | None) -> float:
        """Make or take one stage; returns the seconds that it took.

        Args:
            run: How the run works.
            entry: The stage, and where it is taken from.
            seconds_left: What it and the stages after it will take; None while unknown.
        """
        from bdl.runtime.memory import PeakMemory
        from bdl.runtime.processes import largest
        from bdl.runtime.tracking import Tracker

        stage, store = entry.stage, self.store
        log.debug("%s", describe_values(flatten(stage.settings)))
        if entry.source is not None:
            if run.is_main:
                store.take(stage, entry.source)
            return 0.0
        folder = store.staging_folder(stage)
        page = None
        if run.is_main:
            if entry.anew:
                store.restart(stage)
            store.begin(stage)
            page = self.results.follow(stage, seconds_left)
        run.fabric.barrier()
        peak = PeakMemory()
        log_folder = self.store.folder / "tensorboard" / stage.log if run.is_main else None
        run = run.named(stage.name, lambda: Tracker(log_folder), page)
        with self._timed(run, stage) as took:
            metrics = stage.make(run, folder)
        seconds = took()
        memory = {key: largest(run.fabric, size) for key, size in peak.read().items()}
        log.debug("%s", describe_values({"made in": duration(seconds), **memory}))
        if run.is_main:
            made_on = self._made_on(run)
            made_on.peak_memory = memory.get("peak_memory")
            made_on.peak_gpu_memory = memory.get("peak_gpu_memory")
            store.finish(stage, metrics, seconds, made_on)
        return seconds

    @contextmanager
    def _timed(self, run: Run, stage: Stage) -> Iterator[Callable[[], float]]:
        """Gives what tells the seconds that a stage has taken, those of earlier commands included.
        They are kept now and then, for commands that are killed, and when it stops."""
        before, pace = self.store.seconds_of_begun(stage), Pace(0.0)

        def took() -> float:
            return before + time.monotonic() - run.begun

        def keep() -> None:
            with suppress(UserError):  # the stage is worth more than its time
                self.store.keep_seconds(stage, took())

        def keep_if_due() -> None:
            if pace.is_due():
                with pace.spending():
                    keep()

        self.console.on_progress = keep_if_due if run.is_main else None
        try:
            yield took
        except BaseException:
            if run.is_main:
                keep()
            raise
        finally:
            self.console.on_progress = None

    def _made_on(self, run: Run) -> MadeOn:
        from bdl.runtime.device import resolve_precision

        return MadeOn(
            seed=self.config.seed,
            device=str(run.fabric.device),
            precision=resolve_precision(self.config),
            processes=run.fabric.world_size,
            compiled=run.compile,
        )


def find_problems(
    config: Config,
    data: Problem,
    console: Console,
    to_make: Sequence[Stage],
    trains: bool,
    pixels: bool = False,
    sound: bool = True,
) -> list[str]:
    """All that is wrong with a configuration's networks and data, a line each that says what to
    do: `check` lists it, `run` refuses it before anything is made.

    Args:
        config: The configuration.
        data: Its data sets.
        console: Shows progress.
        to_make: The stages that are to be made, as far as they are known.
        trains: Whether a segmentation network is to be trained: then it is built and tried.
        pixels: Whether all pixels of all files are looked at.
        sound: Whether all settings can be used; if not, the files alone are looked at.
    """
    problems: list[str] = []

    def attempt(require: Callable[[], None]) -> None:
        try:
            require()
        except UserError as error:
            problems.append(str(error))

    attempt(lambda: _require_options(config))
    tried = sound and trains and not problems
    problems += check_problem(config, data, pixels, sound, console)
    if tried:
        attempt(lambda: _require_network(config, data))
    for stage in to_make:
        attempt(stage.require)
    return list(dict.fromkeys(problems))


def _require_options(config: Config) -> None:
    """Raises UserError for a network that is unknown, and for options that it does not take."""
    network, options = config.segmentation.network, config.segmentation.options
    require_known(network, options)
    if network.startswith((TIMM, SMP)):
        from bdl.segmentation.networks import require_options

        require_options(network, options)


def _require_network(config: Config, data: Problem) -> None:
    """Raises UserError for a network that cannot be built, or cannot be trained as configured."""
    import torch

    from bdl.segmentation.train import require_network

    # The calling program's draws are its own.
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        require_network(config, data)


def _needed_by(stage: Stage) -> set[str]:
    """Names of the stages that must be there before a stage is made."""
    return {given.name for given in (*stage.inputs, *stage.seen)}


def _is_to_be_made(entry: Entry) -> bool:
    """Whether an input is not there, and is not made along with a single stage."""
    return entry.run and entry.stage.kind not in ("render", "given")


def _tried(run: Run, stage: Stage) -> float | None:
    """The seconds of a trial of a stage; None where none is made.

    Several processes would have to agree on one that fails, and compiling takes longer than a trial
    is worth.
    """
    if run.compile or run.fabric.world_size > 1:
        return None
    import torch

    from bdl.runtime.device import draws_apart

    device = run.fabric.device
    try:
        with draws_apart(device):
            return stage.trial(replace(run, replay=False))  # to record steps takes longer
    except Exception as error:  # a run is worth more than what is known of its end
        log.debug("  %s could not be tried: %s", stage.name, error)
        return None
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def require_own_folder(config: Config) -> None:
    """Raises UserError if files that no run has made would be replaced by one's."""
    folder = Path(config.out)
    file = folder / CONFIGURATION
    stays = not file.is_file() or _says(file, config)
    require_free(folder, [name for name in WRITES if name != CONFIGURATION or not stays])
    if not stays and not _is_signed(file):
        raise UserError(
            f"out: {file} would be replaced, and was not written by a run, or was changed since; "
            "move it, or set another folder with out=..."
        )


def _signed(text: str) -> str:
    """A file's content that tells by a comment whether somebody has changed it."""
    return f"{_SIGNATURE} ({hashlib.sha256(text.encode()).hexdigest()[:16]})\n{text}"


def _is_signed(file: Path) -> bool:
    """Whether a file is as a run wrote it."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return text == _signed(text.partition("\n")[2])


def _says(file: Path, config: Config) -> bool:
    """Whether a file holds just that configuration."""
    try:
        return file.is_file() and load_config(file) == config
    except UserError:
        return False


def describe_plan(config: Config, plan: Sequence[Entry]) -> str:
    """What will run and what is reused, a line a stage; what would be lost."""
    lines = [
        f"{config.out}: K = {config.iterations}, N = {config.self_training_steps}, "
        f"seed {config.seed}; {sum(entry.run for entry in plan)} of {len(plan)} stages to run"
    ]
    for entry in plan:
        work = counted(entry.stage.work, entry.stage.unit.removesuffix("s"))
        mark = "run  " if entry.run else "reuse"
        lines.append(f"  {mark}  {entry.stage.name:<32} {work:<16} {entry.reason}".rstrip())
    losing = [entry for entry in plan if entry.loses]
    if losing:
        agreed = all(entry.consented for entry in losing)
        verb = "replaces:" if agreed else "needs --replace or another out=..., as it replaces:"
        lines.append(f"  {verb} {describe_loss(losing)}")
    return "\n".join(lines)


def describe_values(values: dict[str, Any]) -> str:
    """A line for each, indented, for those who want to know."""
    return "\n".join(f"    {key}: {value}" for key, value in values.items())
