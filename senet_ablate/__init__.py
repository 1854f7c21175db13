"""Rerun the ablations of "Squeeze-and-Excitation Networks" (arXiv 1709.01507, Tables 10 to 16), and judge them.

Names are imported when they are first used, so `import senet_ablate` costs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from senet_ablate.analysis.comparison import compare as compare
    from senet_ablate.blocks.eca import EfficientChannelAttention as EfficientChannelAttention
    from senet_ablate.blocks.se import SqueezeExcitation as SqueezeExcitation
    from senet_ablate.data.module import ImageDataModule as ImageDataModule
    from senet_ablate.models.build import attach as attach
    from senet_ablate.models.build import build_model as build_model
    from senet_ablate.models.weights import load_model as load_model
    from senet_ablate.report.frames import load_study as load_study
    from senet_ablate.training.module import AblationModule as AblationModule

_HOMES = {
    "AblationModule": "training.module",
    "EfficientChannelAttention": "blocks.eca",
    "ImageDataModule": "data.module",
    "SqueezeExcitation": "blocks.se",
    "attach": "models.build",
    "build_model": "models.build",
    "compare": "analysis.comparison",
    "load_model": "models.weights",
    "load_study": "report.frames",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
