"""Plain networks by name: ours, torchvision's, timm's, pytorchcv's, the user's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import nn

from senet_ablate.errors import UserError, did_you_mean, not_installed
from senet_ablate.models.inception import SmallInception
from senet_ablate.models.pretrained import ends
from senet_ablate.models.resnet import PreActResNet, ResNet
from senet_ablate.models.sites import run_once
from senet_ablate.models.vgg import VGG, SmallNet
from senet_ablate.seeding import forked, initialise, stream_seed
from senet_ablate.spec.backbones import BACKBONES, Kind, is_ours, library
from senet_ablate.spec.network import Network
from senet_ablate.spec.sources import check_source, import_object


def build_backbone(
    network: Network, *, in_channels: int, classes: int, resolution: int, seed: int | None = None
) -> nn.Module:
    """Build a network without any block: images (N, in_channels, H, W) to logits (N, classes).

    With `seed` ours draw their weights from keyed streams, others by their own constructors under a seed of their own.

    Raises:
        ValueError: the library has no such network, or it does not take the arguments.
        UserError: the library is not installed, or the user's code changed or cannot be imported.
    """
    if is_ours(network.backbone):
        model = _ours(network, in_channels=in_channels, classes=classes, resolution=resolution)
        if seed is not None:
            initialise(model, seed)
    else:
        with forked(stream_seed(seed or 0, "backbone")):
            model = _theirs(network, in_channels=in_channels, classes=classes)
    remove_strides(model, network.unstrided, in_channels=in_channels, resolution=resolution)
    return model


OURS: dict[Kind, Callable[..., nn.Module]] = {
    "basic": ResNet,
    "bottleneck": ResNet,
    "preact": PreActResNet,
    "preact-bottleneck": PreActResNet,
    "vgg": VGG,
    "inception": SmallInception,
}
"""The networks of ours that take images of any size, by their kind of unit."""


def _ours(network: Network, *, in_channels: int, classes: int, resolution: int) -> nn.Module:
    if BACKBONES[network.backbone].kind == "small":
        return SmallNet(network, in_channels=in_channels, classes=classes, resolution=resolution)
    return OURS[BACKBONES[network.backbone].kind](network, in_channels=in_channels, classes=classes)


def _theirs(network: Network, *, in_channels: int, classes: int) -> nn.Module:
    arguments: dict[str, Any] = dict(network.arguments)
    name = library(network.backbone)
    maker: Callable[..., nn.Module]
    if name is None:
        check_source(network.backbone, network.source)
        maker = import_object(network.backbone)
        model = maker(num_classes=classes, in_channels=in_channels, **arguments)
        if not isinstance(model, nn.Module):
            raise ValueError(f"network.backbone = {network.backbone!r} gave no torch.nn.Module, but {type(model)}")
        return model
    try:
        module = importlib.import_module(MODULES[name])
    except ImportError:
        raise UserError(f"network.backbone = {network.backbone!r}: {name} is " + not_installed("nets")) from None
    try:
        return MAKERS[name](module, network.backbone.partition(":")[2], in_channels, classes, arguments)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise ValueError(f"network.backbone = {network.backbone!r}: {error}") from error


def _torchvision(models: Any, name: str, in_channels: int, classes: int, arguments: dict[str, Any]) -> nn.Module:
    if name not in models.list_models(module=models):
        raise ValueError(did_you_mean(name, models.list_models(module=models)))
    if name in ("googlenet", "inception_v3"):
        arguments = {"aux_logits": False, "init_weights": True} | arguments
    model = models.get_model(name, weights=None, num_classes=classes, **arguments)
    if in_channels != 3:
        _other_input(model, in_channels)
    return model


def _timm(timm: Any, name: str, in_channels: int, classes: int, arguments: dict[str, Any]) -> nn.Module:
    if name not in timm.list_models():
        raise ValueError(did_you_mean(name, timm.list_models()))
    return timm.create_model(name, pretrained=False, num_classes=classes, in_chans=in_channels, **arguments)


def _pytorchcv(provider: Any, name: str, in_channels: int, classes: int, arguments: dict[str, Any]) -> nn.Module:
    # Its lookup prints and its last pooling is of the size of ImageNet's maps; ours takes maps of any size.
    model = provider.get_model(name, num_classes=classes, in_channels=in_channels, **arguments)
    features = getattr(model, "features", None)
    if isinstance(getattr(features, "final_pool", None), nn.AvgPool2d):
        features.final_pool = nn.AdaptiveAvgPool2d(1)  # type: ignore[union-attr]  # seen above
    return model


def _other_input(model: nn.Module, in_channels: int) -> None:
    """Let the first convolution take images of so many channels, with weights of its own constructor."""
    name = ends(model)[0]
    old: Any = model.get_submodule(name)
    bias = old.bias is not None
    new = nn.Conv2d(in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=bias)
    model.set_submodule(name, new)


MODULES = {"torchvision": "torchvision.models", "timm": "timm", "pytorchcv": "pytorchcv.model_provider"}
MAKERS = {"torchvision": _torchvision, "timm": _timm, "pytorchcv": _pytorchcv}


def remove_strides(model: nn.Module, count: int, *, in_channels: int, resolution: int) -> None:
    """Undo the first `count` halvings of the map: layers that see maps of those sides get a stride of 1.

    A pooling of windows side by side becomes an identity.

    Raises:
        ValueError: the network halves its maps fewer times.
    """
    if not count:
        return
    layers = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    seen = run_once(model, in_channels=in_channels, resolution=resolution * 2**count)  # its maps will be of these sides
    sides = {
        name: seen[name].given[-1]
        for name, module in model.named_modules()
        if isinstance(module, layers) and module.stride not in (1, (1, 1)) and seen[name].calls
    }
    largest = sorted(set(sides.values()), reverse=True)
    if count > len(largest):
        raise ValueError(f"network.unstrided = {count}, but the network halves its maps {len(largest)} times")
    for name, side in sides.items():
        layer = model.get_submodule(name)
        if side not in largest[:count]:
            continue
        if not isinstance(layer, nn.Conv2d) and layer.kernel_size == layer.stride:
            model.set_submodule(name, nn.Identity())  # windows side by side: with a stride of 1 they would eat the edge
        else:
            layer.stride = (1, 1)  # type: ignore[assignment]  # one of `layers`
