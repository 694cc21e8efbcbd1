"""All benchmarks at the paper's sizes on one GPU, the tests marked gpu, and where the time goes.

    python -m benchmarks.gpu --out FOLDER [--limit 480]

Writes into FOLDER a JSON file for each benchmark, `profile-*.txt` (torch.profiler's summaries of
both steps), `log.txt` and `summary.md`, the table of all. Needs torch, torchvision, lightning,
torchmetrics, timm, kornia, omegaconf, rich, tensorboard and, for the tests, pytest. What does not
work is named in the summary, and the rest goes on. Nothing is begun after `--limit` seconds, and a
benchmark that runs then is ended; the same command with the same FOLDER later does what is missing.
Replayed steps come first (whether they learn as computed ones do, and how long they take), then the
steps beside the published ones and a rehearsal of a whole recipe; compiling, which may take
minutes, last.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks import segmentation_step, translation_step
from benchmarks.common import MB, Way, exit_status, profiled_on_gpu, table

ROOT = Path(__file__).resolve().parent.parent
TRANSLATION = ["translation_step", "--crop", "452"]
SEGMENTATION = ["segmentation_step", "--source", "1280", "720", "--target", "1024", "512"]
CAMVID = ["--recipe", "camvid_day_dusk"]
# By the name of the JSON file. Compiling may take minutes, so that it is measured by itself.
PAPER = {
    "replay-segmentation": ["replay", "--step", "segmentation"],
    "replay-translation": ["replay", "--step", "translation", "translation.batch_size=1"],
    "replay-translation-batch-4": ["replay", "--step", "translation"],
    "segmentation_step": [*SEGMENTATION, "--turns", "7", "--replay"],
    "translation_step": [*TRANSLATION, "--turns", "7", "--replay"],
    "translation_step-batch-4": [*TRANSLATION, "--turns", "5", "--replay", "--batch", "4"],
    "replay-segmentation-camvid": ["replay", "--step", "segmentation", *CAMVID],
    "replay-translation-camvid": ["replay", "--step", "translation", *CAMVID],
    "rehearsal": [
        "rehearsal", "--config", "gta5_cityscapes_deeplab", "--steps", "12", "--images", "8",
        "precision=auto", "replay=true",
    ],
    "replay-segmentation-search": ["replay", "--step", "segmentation", "--search"],
    "replay-translation-search": [
        "replay", "--step", "translation", "--search", "translation.batch_size=1",
    ],
    "evaluation": ["evaluation", "--images", "4", "--turns", "7"],
    "pseudo_labels": ["pseudo_labels", "--images", "50", "--turns", "3", "--workers", "4"],
    "export": [
        "export", "--size", "1280", "720", "--images", "24", "--turns", "3", "--workers", "4",
    ],
    "segmentation_step-compiled": [*SEGMENTATION, "--turns", "5", "--compile", "--replay"],
    "translation_step-compiled": [*TRANSLATION, "--turns", "5", "--compile", "--replay"],
}  # fmt: skip
PROFILED: dict[str, tuple[Way, argparse.Namespace]] = {
    "translation": (
        translation_step.ours,
        argparse.Namespace(device="cuda", crop=452, batch=1, width=64, blocks=9),
    ),
    "segmentation": (
        segmentation_step.ours,
        argparse.Namespace(device="cuda", source=[1280, 720], target=[1024, 512]),
    ),
}
_STEPS = 3  # that are profiled


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--limit", type=float, default=480.0, help="seconds (default 480)")
    parser.add_argument("--profile", choices=PROFILED, help="write this profile alone")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(
            "benchmarks.gpu: no CUDA device on this machine; the benchmarks run on the CPU one by "
            "one, such as python -m benchmarks.translation_step",
            file=sys.stderr,
        )
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    if options.profile is not None:
        summary = profiled(*PROFILED[options.profile])
        (options.out / f"profile-{options.profile}.txt").write_text(summary, encoding="utf-8")
        return 0
    end = time.monotonic() + options.limit
    failed = []
    with open(options.out / "log.txt", "a", encoding="utf-8") as log:

        def run(name: str, command: list[str], file: Path) -> None:
            """Run it, unless `file`, which it makes, is there."""
            if file.is_file():
                return
            seconds = end - time.monotonic()
            if seconds <= 0:
                failed.append(f"{name}: not begun within the limit of time")
                return
            print(f"{name} ...", flush=True)
            try:
                done = subprocess.run(
                    [sys.executable, "-m", *command],
                    cwd=ROOT,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=seconds,
                    check=False,
                )
                if done.returncode:
                    file.unlink(missing_ok=True)  # so that it is done again
                    failed.append(f"{name}: exit status {done.returncode}, see log.txt")
            except subprocess.TimeoutExpired:
                failed.append(f"{name}: not finished within the limit of time, see log.txt")

        out = options.out.resolve()
        # Of the files with such tests alone: others need packages that a bare machine lacks.
        marked = [
            str(f) for f in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in f.read_text()
        ]
        tests = ["pytest", "-m", "gpu", "-p", "no:cacheprovider", "--junit-xml"]
        run("tests", [*tests, str(out / "tests.xml"), *sorted(marked)], out / "tests.xml")
        for name in PROFILED:
            command = ["benchmarks.gpu", "--profile", name, "--out", str(out)]
            run(f"profile of {name}", command, out / f"profile-{name}.txt")
        for name, (benchmark, *arguments) in PAPER.items():
            file = out / f"{name}.json"
            command = [f"benchmarks.{benchmark}", "--device", "cuda", "--json", str(file)]
            run(name, [*command, *arguments], file)
    summary = summarize(options.out, failed)
    (options.out / "summary.md").write_text(summary, encoding="utf-8")
    print(summary)
    return int(bool(failed))


def profiled(way: Way, options: argparse.Namespace) -> str:
    """Torch's table of the operations of a few steps that took longest on the device."""
    work = way(options)
    for _ in range(_STEPS):
        work()
    profile = profiled_on_gpu(work, _STEPS)
    return profile.table(sort_by="self_device_time_total", row_limit=30)


def summarize(folder: Path, failed: list[str]) -> str:
    """The results in `folder` as Markdown, and what `failed`."""
    rows, said, machine = [], [], "no benchmark finished"
    for name in PAPER:
        file = folder / f"{name}.json"
        if not file.is_file():
            continue
        result = json.loads(file.read_text(encoding="utf-8"))
        machine = (
            f"{result['machine']['device']}, torch {result['versions']['torch']}, "
            + (result["date"])
        )
        if "hours" in result:
            said.append(f"- {name}: the whole recipe in {result['hours']:.1f} hours")
        for way, timing in result.get("ways", {}).items():
            rows.append(
                [
                    name,
                    way,
                    f"{timing['seconds']:.4g}",
                    f"{timing['first_seconds']:.4g}",
                    f"{timing['ratio']:.2f}",
                    f"{timing['memory_peak'] / MB:.0f}" if "memory_peak" in timing else "",
                ]
            )
    head = ["benchmark", "way", "s (median)", "s the first time", "times as fast", "peak MB"]
    problems = [f"- {problem}" for problem in failed]
    return "\n".join([machine, "", table(head, rows), "", *said, *problems]).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(exit_status(main))
