"""Kill a tiny loop at random instants, let it go on, and compare with one that was never killed.

    python benchmarks/kill_and_resume.py --kills 50 [--devices 2] [--workers 2] [--seed 0]

Each trial is killed with SIGKILL one to three times, then runs to its end; weights, pseudo labels,
translations, predictions, curves and results.json (but for its seconds) must be the same to the
last bit. The exit status is 1 if anything differs. Needs a system with SIGKILL, not Windows.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

ROOT = Path(__file__).resolve().parent.parent

_STREETS = {"layout": "streets", "size": [48, 32]}
TINY = {
    "iterations": 1,
    "self_training_steps": 1,
    "device": "cpu",
    "log_every": 2,
    "checkpoint_every": 3,
    "data": {
        "label_space": "camvid11",
        "source": {**_STREETS, "scenes": 6, "appearance": "synthetic"},
        "target": {**_STREETS, "scenes": 6, "appearance": "real"},
        "validation": {**_STREETS, "scenes": 4, "appearance": "real"},
        "workers": 0,
    },
    "translation": {
        "load_width": None,
        "crop": [32, 32],
        "batch_size": 2,
        "constant_epochs": 2,
        "decay_epochs": 1,
        "steps_per_epoch": 4,
        "pool_size": 4,
        "generator": {"width": 4, "blocks": 1},
        "discriminator_width": 4,
    },
    "segmentation": {
        "network": "compact",
        "options": {"width": 4, "dilations": [1]},
        "steps": 8,
        "pseudo_label_steps": None,
        "batch_size": 2,
        "optimizer": {"name": "adamw", "lr": 2.0e-3, "head_multiplier": 1},
        "adversarial": {"width": 4},
        "augmentation": {"flip": True, "brightness": 0.2},
    },
}

# What says when and where a run was made, not what it made.
_ABOUT = ("manifest.json", "config.yaml", "log.txt", "report.html", "run.lock")


def write_tiny(folder: Path) -> Path:
    """A configuration whose whole loop takes about two seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    return file


def differences(one: Path, other: Path) -> list[str]:
    """What two runs' folders do not have in common, in words; empty if they are the same."""
    files = [_files(one), _files(other)]
    differing = [f"only in one: {name}" for name in sorted(files[0] ^ files[1])]
    for name in sorted(files[0] & files[1]):
        if _content(one / name) != _content(other / name):
            differing.append(f"differs: {name}")
    return differing


def _files(folder: Path) -> set[str]:
    names = (f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
    return {n for n in names if not n.endswith(_ABOUT) and not n.startswith("tensorboard/")}


def _content(file: Path) -> object:
    if file.suffix == ".pt":
        state = torch.load(file, weights_only=True)["state"]
        return {
            key: (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())
            for key, value in state.items()
        }
    if file.name == "results.json":
        return [{**row, "seconds": None} for row in json.loads(file.read_text(encoding="utf-8"))]
    return file.read_bytes()


class Runs:
    """Runs of the pipeline in processes of their own, which can be killed."""

    def __init__(self, config: Path, overrides: list[str]) -> None:
        self.config, self.overrides = config, overrides
        self._server = multiprocessing.get_context("forkserver")
        # Imported once, by the server that all are forked from: a process starts in an instant.
        self._server.set_forkserver_preload(
            ["bdl.execution", "bdl.segmentation.train", "bdl.translation.train"]
        )

    def arguments(self, out: Path) -> list[str]:
        return ["run", "--config", str(self.config), f"out={out}", *self.overrides]

    def run(self, out: Path, kill_after: float | None = None, by: int = signal.SIGKILL) -> int:
        """The run's exit status; with `kill_after` it gets the signal `by` then, in seconds."""
        if any(override.startswith("devices=") for override in self.overrides):
            return self._run_script(out, kill_after, by)
        process = self._server.Process(target=_run, args=(self.arguments(out),))
        process.start()
        process.join(kill_after)
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, by)
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    def _run_script(self, out: Path, kill_after: float | None, by: int) -> int:
        """The same by the command line: a run of several processes starts them so."""
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "pipeline.py"), *self.arguments(out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(kill_after)
        process.send_signal(by)
        return process.wait()


def _run(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    # What the server passes on would have each loader start a server of its own.
    multiprocessing.set_start_method("fork", force=True)
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        from bdl.pipeline import main

        status = main(arguments)
    sys.exit(status)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    overrides = [f"data.workers={options.workers}"]
    if options.devices > 1:
        overrides.append(f"devices={options.devices}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        runs = Runs(write_tiny(folder), overrides)
        whole = folder / "never-killed"
        runs.run(folder / "warm-up")
        started = time.monotonic()
        if runs.run(whole):
            raise SystemExit("the run that is not killed fails")
        length = time.monotonic() - started
        print(f"a whole run takes {length:.1f} s")
        kills = failures = trial = 0
        while kills < options.kills:
            trial += 1
            out = folder / f"trial-{trial}"
            hits = []
            for _ in range(draw.randint(1, 3)):
                after = draw.uniform(0, length)
                if runs.run(out, kill_after=after) == -signal.SIGKILL:
                    hits.append(f"{after:.2f} s")
            kills += len(hits)
            status = runs.run(out)
            differing = differences(whole, out) if status == 0 else [f"exit status {status}"]
            failures += bool(differing)
            killed = f"killed after {', '.join(hits)}" if hits else "ended before its kill"
            print(f"{killed}: {'; '.join(differing) or 'the same'}", flush=True)
    print(f"{kills} kills in {trial} runs, {failures} of which differ")
    return int(failures > 0)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
