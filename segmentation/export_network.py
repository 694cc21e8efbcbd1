"""A trained network for other programs: ONNX, or a torch.export archive.

What is exported takes RGB images in [0, 1], 1 x 3 x H x W, and gives class probabilities,
1 x C x H x W, as `predict.probabilities` makes them; it needs none of this project's code.
"""

import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from runtime.device import random_for
from runtime.errors import UserError
from runtime.files import atomic
from segmentation.networks.base import Segmenter, upsample
from segmentation.predictor import Predictor

_NEEDED = ("onnx", "onnxruntime", "onnxscript")
# Probabilities that differ by less are equal: other libraries sum in another order.
_TOLERANCE = 1e-3


class _Probabilities(nn.Module):
    def __init__(self, network: Segmenter, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, images: Tensor) -> Tensor:
        return upsample(self.network.scores(images).softmax(1), self.size)


def export_network(predictor: Predictor, out: Path, size: tuple[int, int] | None = None) -> None:
    """Write the predictor's network to `out`, NAME.onnx or NAME.pt2, for images of `size` (width,
    height; default: that of its training). The classes' names and colours travel with it.

    Before anything is written, the exported network labels an image: it must give the same labels
    as the network itself. Raises UserError if it does not, or if it cannot be exported.
    """
    size = size or predictor.trained_size
    if size is None:
        raise UserError(f"{predictor.file}: the size it was trained at is not known; give --size")
    width, height = size
    values = random_for(0, "export").random((1, 3, height, width), np.float32)
    images = torch.from_numpy(values)
    module = _Probabilities(predictor.network.cpu(), (height, width)).eval()
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with torch.no_grad():
        expected = module(images)
        if out.suffix == ".onnx":
            found, content = _to_onnx(module, images, predictor)
        elif out.suffix == ".pt2":
            program = torch.export.export(module, (images,))
            found = program.module()(images)
            content = None
        else:
            raise UserError(f"{out}: must end with .onnx or .pt2")
    if not same_labels(found, expected):
        raise UserError(f"{out}: the exported network gives other labels; it was not written")
    with atomic(out) as partial, open(partial, "wb") as file:
        if content is not None:
            file.write(content)
        else:
            extra = {"label_space.json": json.dumps(predictor.space.describe())}
            torch.export.save(program, file, extra_files=extra)


def same_labels(found: Tensor, expected: Tensor) -> bool:
    """Whether probabilities (N x C x H x W) agree, and so do their labels but for ties."""
    if found.shape != expected.shape or (found - expected).abs().max() > _TOLERANCE:
        return False
    best, second = expected.topk(2, 1).values.unbind(1)
    differ = found.argmax(1) != expected.argmax(1)
    return not bool((differ & (best - second > 2 * _TOLERANCE)).any())


def _to_onnx(module: nn.Module, images: Tensor, predictor: Predictor) -> tuple[Tensor, bytes]:
    """What the network in ONNX gives for `images`, and the file's content."""
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
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props["label_space"] = json.dumps(predictor.space.describe())
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    return torch.from_numpy(found), content
