"""Runs made by bdl 0.1: all that knows their form is here.

Their records do not say round, step and symbol, which are in the stages' names; the keys of their
settings are shorter; and what they measured by class stands under the classes' names, not under
train ids.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bdl.domains.datasets import listing
from bdl.domains.problem import ImageSet, digest
from bdl.runtime.errors import UserError
from bdl.runtime.files import read_json
from bdl.runtime.metrics import Metrics
from bdl.runtime.store import Manifest
from bdl.runtime.values import restored
from bdl.segmentation import stages as segmentation
from bdl.segmentation.metrics import EvaluationMetrics, PseudoLabelMetrics
from bdl.translation import stages as translation
from bdl.translation.metrics import MeasureMetrics

Kind = TypeVar("Kind", bound=Metrics)

_NAME = re.compile(r"k(\d+)/(translator|translated|segmentation|pseudo-labels)(?:-(\d+))?(/.+)?")
_ROLES = ("source", "target", "validation")


def renewed(manifest: Manifest) -> Manifest:
    """A record of theirs with what later ones say.

    Args:
        manifest: The record, of version 1.

    Returns:
        The same with round, step and symbol, the networks among the files, and settings of images
        under the keys that they have now ("data.target").
    """
    k, i, symbol, network = _described(manifest.stage)
    settings = {
        f"data.{key}" if key in _ROLES else key: value for key, value in manifest.settings.items()
    }
    return replace(
        manifest,
        k=k,
        i=i,
        symbol=symbol,
        network=network is not None,
        files=[network] if network is not None else [],
        settings=settings,
    )


def _described(stage: str) -> tuple[int, int, str, str | None]:
    """Round, step, the paper's symbol, and the file of the network that a stage of that name
    makes."""
    if stage.partition("/")[0] == "source-only":
        network = None if "/" in stage else segmentation.RESULT
        return 0, 0, segmentation.Segmenter().symbol, network
    if stage == "translated/measures":
        return 1, 0, "given translations", None
    parts = _NAME.fullmatch(stage)
    if parts is None:
        return 0, 0, stage, None
    k, what, i, inner = int(parts[1]), parts[2], int(parts[3] or 0), parts[4]
    if what == "segmentation":
        network = None if inner else segmentation.RESULT
        return k, i, segmentation.Segmenter(k=k, i=i).symbol, network
    if what == "pseudo-labels":
        return k, i, f"pseudo labels for {segmentation.Segmenter(k=k, i=i).symbol}", None
    network = translation.RESULT if what == "translator" else None
    return k, 0, translation.Translator(k=k).symbol, network


def read_old_metrics(file: Path, manifest: Manifest, kind: type[Kind]) -> Kind:
    """What a stage of theirs measured, with classes counted by train id.

    Args:
        file: The stage's metrics.
        manifest: Its record.
        kind: The form that is wanted.

    Raises:
        UserError: The file is damaged.
    """
    try:
        content = read_json(file)
        if issubclass(kind, EvaluationMetrics):
            return restored(kind, _evaluation(content))
        if issubclass(kind, PseudoLabelMetrics):
            return restored(kind, {**content, "classes": list(content["classes"].values())})
        if issubclass(kind, MeasureMetrics):
            names = manifest.settings["labels"]["label_space"]
            return restored(kind, {**content, "drift": _drift(content["drift"], names)})
        return restored(kind, content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: is not what a stage measured ({error!r})") from None


def _evaluation(content: dict[str, Any]) -> dict[str, Any]:
    own = ("images", "miou", "iou", "confusion", "warnings")
    subsets = {key: value for key, value in content.items() if key not in own}
    return {**content, "subsets": subsets, "iou": list(content["iou"].values())}


def _drift(content: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    worst = [
        {key: names.index(pair[key]) for key in ("label", "predicted")} | {"share": pair["share"]}
        for pair in content["worst"]
    ]
    return {
        **content,
        "lost": content["broken"],
        "recovered": content["mended"],
        "worst": worst,
    }


def image_settings(images: ImageSet) -> dict[str, Any]:
    """Images as a setting of theirs: what `renewed` settings hold under their role's key."""
    settings: dict[str, Any] = {"size": list(images.size) if images.size else None}
    if images.rendered is None:
        settings["files"] = digest(listing(images.samples()))
    return settings
