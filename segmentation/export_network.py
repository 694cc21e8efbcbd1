"""A trained network for other programs: ONNX, or a torch.export archive.

What is exported takes RGB images in [0, 1], N x 3 x H x W, and gives class probabilities,
N x C x H x W, as `predict.probabilities` makes them; it needs none of this project's code.
"""

import importlib.util
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn

from bdl.runtime.device import random_for
from bdl.runtime.errors import UserError, first_line
from bdl.runtime.files import atomic
from bdl.segmentation.networks.base import Segmenter, upsample
from bdl.segmentation.predictor import Predictor

_NEEDED = ("onnx", "onnxruntime", "onnxscript")
# Probabilities that differ by less are equal: other libraries sum in another order.
_TOLERANCE = 1e-3
# What may be free in an exported network, the most first: many fix their size, or all.
_FREE: tuple[tuple[str, ...], ...] = (("batch", "height", "width"), ("batch",), ())


class _Probabilities(nn.Module):
    def __init__(self, network: Segmenter, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, images: Tensor) -> Tensor:
        size = self.size or (images.shape[-2], images.shape[-1])
        return upsample(self.network.scores(images).softmax(1), size)


@dataclass(frozen=True)
class _Exported:
    """An exported network: what it computes, and how it is written."""

    compute: Callable[[Tensor], Tensor]
    write: Callable[[IO[bytes]], object]


def export_network(
    predictor: Predictor, out: Path, size: tuple[int, int] | None = None, free: bool = False
) -> tuple[str, ...]:
    """Write the predictor's network for other programs, with its classes' names and colours.

    Before anything is written, the exported network labels images: it must give the same labels as
    the network itself, of each size and number of images that it is said to take.

    Args:
        predictor: Holds the network.
        out: NAME.onnx or NAME.pt2.
        size: Width and height of the images; default: that at which its run evaluates images.
        free: Whether it is to take any number of images of any size; what the network cannot
            leave free is fixed at one image of `size`.

    Returns:
        What is free: ("batch", "height", "width"), ("batch",), or nothing.

    Raises:
        UserError: If the exported network gives other labels, or it cannot be exported.
    """
    size = size or predictor.view.size
    if size is None:
        raise UserError(
            f"{predictor.file}: the size of its run's images is not known, or differs; give --size"
        )
    width, height = size
    if out.suffix not in (".onnx", ".pt2"):
        raise UserError(f"{out}: must end with .onnx or .pt2")
    network = predictor.network.cpu()
    problem = ""
    for axes in _FREE if free else ((),):
        fixed = None if "height" in axes else (height, width)
        module = _Probabilities(network, fixed).eval()
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        count = 2 if axes else 1
        images = _images(count, height, width)
        tried = [images]
        if axes:
            tried.append(_images(1, height, width))
        if "height" in axes:
            tried.append(_images(3, height + 9, width + 22))
        try:
            with torch.no_grad():
                export = _to_onnx if out.suffix == ".onnx" else _to_pt2
                exported = export(module, images, predictor, axes)
                right = all(same_labels(exported.compute(i), module(i)) for i in tried)
            if right:
                with atomic(out) as partial, open(partial, "wb") as file:
                    exported.write(file)  # a network that computes may be refused here
                return axes
        except (UserError, OSError):
            raise
        except Exception as error:  # of the exporter's, torch's and the runtime's many kinds
            problem = f"it cannot be exported ({type(error).__name__}: {first_line(error)})"
            continue
        problem = "the exported network gives other labels; it was not written"
    raise UserError(f"{out}: {problem}")


def _images(count: int, height: int, width: int) -> Tensor:
    values = random_for(0, "export").random((count, 3, height, width), np.float32)
    return torch.from_numpy(values)


def _dynamic_shapes(axes: tuple[str, ...]) -> tuple[dict[int, Any]]:
    """For the only input: its axes that are free."""
    places = {"batch": 0, "height": 2, "width": 3}
    return ({places[name]: torch.export.Dim.DYNAMIC for name in axes},)


def _to_pt2(
    module: nn.Module, images: Tensor, predictor: Predictor, axes: tuple[str, ...]
) -> _Exported:
    program = torch.export.export(
        module, (images,), dynamic_shapes=_dynamic_shapes(axes) if axes else None
    )
    extra = {"label_space.json": json.dumps(predictor.space.describe())}
    return _Exported(
        program.module(), lambda file: torch.export.save(program, file, extra_files=extra)
    )


def same_labels(actual: Tensor, expected: Tensor) -> bool:
    """Whether probabilities (N x C x H x W) agree, and so do their labels but for ties."""
    if actual.shape != expected.shape or (actual - expected).abs().max() > _TOLERANCE:
        return False
    best, second = expected.topk(2, 1).values.unbind(1)
    differ = actual.argmax(1) != expected.argmax(1)
    return not bool((differ & (best - second > 2 * _TOLERANCE)).any())


def _to_onnx(
    module: nn.Module, images: Tensor, predictor: Predictor, axes: tuple[str, ...]
) -> _Exported:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"ONNX needs {', '.join(missing)}; install with: pip install {' '.join(missing)}"
        )
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        module,
        (images,),
        input_names=["images"],
        output_names=["probabilities"],
        dynamo=True,
        dynamic_shapes=_dynamic_shapes(axes) if axes else None,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props["label_space"] = json.dumps(predictor.space.describe())
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def compute(values: Tensor) -> Tensor:
        (logits,) = session.run(None, {"images": values.numpy()})
        return torch.from_numpy(logits)

    return _Exported(compute, lambda file: file.write(content))
