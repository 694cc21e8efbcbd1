"""Any network of segmentation_models_pytorch."""

import difflib
import importlib.util
import inspect
import math
import warnings
from fractions import Fraction
from typing import Any

import timm
import torch
from torch import Tensor, nn

from bdl.runtime.errors import UserError, first_line
from bdl.segmentation.networks.base import Normalization, ParameterGroup, Segmenter
from bdl.segmentation.networks.layers import (
    freeze_unused,
    layers_of,
    parameter_groups_of,
    recompute_blocks,
    replace_depthwise,
    require_several_images,
)
from bdl.segmentation.networks.sizes import crop_scores, pad_to_multiple
from bdl.segmentation.networks.timm_backbone import (
    load_packaged,
    normalization_of,
    packaged_weights,
)

_TIMM = "tu-"  # before the name of an encoder of timm
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_DPN = ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3)
# What an encoder's weights expect, by the beginning of its name; others expect ImageNet's.
_EXPECTED = {
    "dpn": _DPN,
    "inception": _HALF,
    "xception": _HALF,
    "timm-tf_efficientnet_lite": _HALF,
}
_SMALLEST = (1, 2, 4, 8)  # sides, in multiples of the stride, that a network may want at least
# What the network here decides itself.
_OURS = ("encoder_name", "in_channels", "classes", "activation", "aux_params", "self", "kwargs")


class SmpNetwork(Segmenter):
    """An architecture and an encoder of segmentation_models_pytorch, equal number for number to
    what its create_model makes, whose state dict's keys it has, too.

    Scores are those before the segmentation head upsamples them, which all later steps can afford:
    at stride 1 to 8, as the architecture has it. Images of any size are padded on the right and
    below to what the encoder takes.

    Args:
        num_classes: Channels of the scores.
        pair: ARCH/ENCODER, e.g. Unet/resnet34, Segformer/mit_b5, FPN/tu-convnext_tiny.
        encoder_weights: Name of the encoder's weights on the hub, or for an encoder of timm (tu-)
            true; null: none.
        frozen_statistics: Whether batch norm in the encoder keeps its running statistics, and
            normalises by them in training, too.
        gradient_checkpointing: Whether the encoder's blocks are computed again for the backward
            pass instead of kept: less memory, more time, the same gradients.
        **options: The architecture's own, and those of timm's for an encoder of timm.

    Raises:
        UserError: If the package is missing, it has no such pair, the pair does not fit together,
            an option is unknown, or the weights are not at hand.
    """

    head_prefixes = ("decoder.", "segmentation_head.")
    class_prefixes = ("segmentation_head.",)
    weight_roots = ("encoder.model.", "encoder.")
    foldable = False

    def __init__(
        self,
        num_classes: int,
        pair: str,
        encoder_weights: str | bool | None = "imagenet",
        frozen_statistics: bool = False,
        gradient_checkpointing: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.require_options(pair, encoder_weights, **options)
        architecture, encoder = _known(pair)
        weights = encoder_weights or None
        packaged = packaged_weights(encoder.removeprefix(_TIMM)) if weights else None
        if encoder.startswith(_TIMM):
            # Its own weights are those of its name.
            weights = True if weights and packaged is None else None
        else:
            packaged = None
        network = _make(architecture, encoder, weights, num_classes, options)
        if packaged is not None:
            load_packaged(network.encoder.model, encoder.removeprefix(_TIMM), packaged)
        self.num_classes, self.pair = num_classes, pair
        self.part_with_frozen_statistics = "encoder" if frozen_statistics else None
        # Stored: it is the weights' own, which may have come from a hub.
        self.normalize = Normalization(*_normalization(encoder, weights, packaged), stored=True)
        self.encoder: Any = network.encoder
        self.decoder: Any = network.decoder
        self.segmentation_head: Any = network.segmentation_head
        # Maps come with their tokens, and one of half their size is made of them.
        self.takes_tokens = architecture.__name__ == "DPT"
        replace_depthwise(self)
        self.multiple = math.lcm(*_strides(self.encoder)) * (2 if self.takes_tokens else 1)
        self.least, self.stride = self._try()
        if gradient_checkpointing:
            recompute_blocks(self.encoder)

    @staticmethod
    def require_options(
        pair: str,
        encoder_weights: str | bool | None = "imagenet",
        frozen_statistics: bool = False,
        gradient_checkpointing: bool = False,
        **options: Any,
    ) -> None:
        """Raise UserError for an unknown pair, option or name of weights; nothing is built."""
        architecture, encoder = _known(pair)
        named = [name for name in inspect.signature(architecture).parameters if name not in _OURS]
        named.remove("encoder_weights")
        unknown = sorted(set(options) - set(named))
        refused = [name for name in unknown if name in _OURS or not encoder.startswith(_TIMM)]
        if refused:
            raise UserError(
                f"segmentation.options.{refused[0]}: smp:{pair} takes {', '.join(named)}, "
                "encoder_weights, frozen_statistics and gradient_checkpointing"
            )
        if encoder_weights and not encoder.startswith(_TIMM):
            _require_weights(pair, encoder, encoder_weights)

    def scores(self, images: Tensor) -> Tensor:
        padded = pad_to_multiple(self.normalize(images), self.multiple, self.least)
        return crop_scores(self._scores_of(padded), images, self.stride)

    def _scores_of(self, padded: Tensor) -> Tensor:
        features = self.encoder(padded)
        try:
            joined = self.decoder(*features) if self.takes_tokens else self.decoder(features)
        except ValueError as error:
            require_several_images(error, f"smp:{self.pair}", len(padded))
            raise
        head = self.segmentation_head
        return head.head(joined) if self.takes_tokens else head[0](joined)

    def _try(self) -> tuple[int, Fraction]:
        """The least side that it takes, and the stride of its scores, seen with a small image."""
        self.eval()
        reason = ""
        device = self.normalize.mean.device
        for times in _SMALLEST:
            side = times * self.multiple
            try:
                with torch.inference_mode(False), torch.enable_grad():
                    scores = self._scores_of(torch.zeros(1, 3, side, side, device=device))
                    freeze_unused(self, scores)
            except RuntimeError as error:  # some pool more often than small images allow
                reason = reason or first_line(error)
                continue
            self.train()
            return side, Fraction(side, scores.shape[-2])
        raise UserError(f"segmentation.network: smp:{self.pair} takes no images: {reason}")

    def parameter_groups(self, rates: str = "printed") -> list[ParameterGroup]:
        return parameter_groups_of(self.encoder, [self.decoder, self.segmentation_head])

    def layers(self) -> list[list[nn.Parameter]]:
        return layers_of(self.encoder, (self.least, self.least))


def _known(pair: str) -> tuple[type[Any], str]:
    """The class of an architecture and the encoder's name."""
    if importlib.util.find_spec("segmentation_models_pytorch") is None:
        raise UserError(
            f"segmentation.network: smp:{pair} needs the package segmentation-models-pytorch; "
            'install it with: pip install "bdl[smp]"'
        )
    import segmentation_models_pytorch as smp

    name, _, encoder = pair.partition("/")
    classes = {kind.__name__.lower(): kind for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    if not encoder or name.lower() not in classes:
        known = ", ".join(kind.__name__ for kind in classes.values())
        raise UserError(
            f"segmentation.network: 'smp:{pair}' is not smp:ARCH/ENCODER with ARCH one of {known}"
        )
    bare = encoder.removeprefix(_TIMM)
    names = timm.list_models() if encoder != bare else smp.encoders.get_encoder_names()
    if not (timm.is_model(bare) if encoder != bare else encoder in names):
        near = difflib.get_close_matches(bare, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        where = "timm" if encoder != bare else "segmentation_models_pytorch"
        also = "" if encoder != bare else f" ({_TIMM}NAME are timm's)"
        raise UserError(
            f"segmentation.network: 'smp:{pair}': {where} has no encoder '{bare}'{hint}{also}"
        )
    return classes[name.lower()], encoder


def _require_weights(pair: str, encoder: str, weights: str | bool) -> None:
    from segmentation_models_pytorch.encoders import encoders

    known = encoders[encoder].get("pretrained_settings", {})
    if weights not in known:
        raise UserError(
            f"segmentation.options.encoder_weights: is {weights!r}, must be null for smp:{pair}"
            + (f", or one of {', '.join(known)}" if known else "")
        )


def _make(
    architecture: type[Any],
    encoder: str,
    weights: str | bool | None,
    num_classes: int,
    options: dict[str, Any],
) -> Any:
    """The package's own network."""
    pair = f"{architecture.__name__}/{encoder}"
    if architecture.__name__ == "DPT" and "img_size" not in options:
        options = {"dynamic_img_size": True, **options}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that the package will change some day
            return architecture(
                encoder_name=encoder, encoder_weights=weights, classes=num_classes, **options
            )
    except OSError:
        raise UserError(
            f"segmentation.network: the weights of smp:{pair} cannot be fetched; get "
            f"{_address(encoder, weights)} where the hub can be reached, and set "
            "segmentation.weights=FILE, or segmentation.options.encoder_weights=null to start "
            "without"
        ) from None
    except Exception as error:  # of any kind: they come from the depths of two packages
        reason = str(error.args[0]) if isinstance(error, KeyError) and error.args else None
        raise UserError(
            f"segmentation.network: smp:{pair} cannot be made: {reason or first_line(error)}"
        ) from None


def _address(encoder: str, weights: str | bool | None) -> str:
    """Where the file of an encoder's weights is."""
    if encoder.startswith(_TIMM):
        config = timm.get_pretrained_cfg(encoder.removeprefix(_TIMM))
        repository = config.hf_hub_id if config is not None else ""
    else:
        from segmentation_models_pytorch.encoders import encoders

        repository = encoders[encoder]["pretrained_settings"][weights]["repo_id"]
    return f"https://huggingface.co/{repository}/resolve/main/model.safetensors"


def _normalization(
    encoder: str, weights: str | bool | None, packaged: Any
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that the encoder's weights expect of RGB in [0, 1]."""
    from segmentation_models_pytorch.encoders import get_preprocessing_params

    if packaged is not None:
        normalization = normalization_of(encoder.removeprefix(_TIMM))
        return tuple(normalization.mean.flatten().tolist()), tuple(
            normalization.std.flatten().tolist()
        )
    if encoder.startswith(_TIMM):
        config = timm.get_pretrained_cfg(encoder.removeprefix(_TIMM))
        return (tuple(config.mean), tuple(config.std)) if config is not None else _IMAGENET
    if isinstance(weights, str):
        given = get_preprocessing_params(encoder, weights)  # beside the weights, fetched already
        largest = float(given["input_range"][1])
        if given["input_space"] == "RGB":
            return (
                tuple(value / largest for value in given["mean"]),
                tuple(value / largest for value in given["std"]),
            )
    return next((v for name, v in _EXPECTED.items() if encoder.startswith(name)), _IMAGENET)


def _strides(encoder: Any) -> list[int]:
    """The strides that sides of images must be a multiple of."""
    if hasattr(encoder, "output_strides"):
        return [int(stride) for stride in encoder.output_strides]
    return [int(encoder.output_stride)]
