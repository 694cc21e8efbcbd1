"""Bidirectional learning for domain adaptation of semantic segmentation: the whole loop.

from bdl import Predictor, load_config, run_loop
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bdl.pipeline import run_loop
    from bdl.runtime.config import load_config
    from bdl.segmentation.predictor import Predictor

__version__ = "0.2.0"
__all__ = ["Predictor", "load_config", "run_loop"]

# Imported when they are asked for: `bdl --help` needs no PyTorch.
_HOMES = {
    "Predictor": "bdl.segmentation.predictor",
    "load_config": "bdl.runtime.config",
    "run_loop": "bdl.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bdl' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
