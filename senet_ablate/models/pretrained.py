"""Read weights from files, and start a plain network from them before any block is put in."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from senet_ablate.environment import unwarned
from senet_ablate.errors import UserError, reason
from senet_ablate.files import WEIGHTS_LIMIT, open_file
from senet_ablate.spec.backbones import library
from senet_ablate.spec.network import Network
from senet_ablate.spec.sources import check_weights

State = dict[str, Tensor]


def read_weights(path: Path, *, inside: Path | None = None) -> State:
    """A state dict from a file, on the processor; never executes what it reads, follows no link below `inside`.

    Raises:
        UserError: the file cannot be read or is no state dict.
    """
    try:
        with unwarned(), open_file(path, WEIGHTS_LIMIT, inside=inside) as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is none makes torch raise
        raise UserError(f"{path}: cannot be read as weights: {reason(error)}") from None
    if not isinstance(state, dict) or not all(isinstance(name, str) and _is_whole(state[name]) for name in state):
        raise UserError(
            f"{path}: expected a state dict, tensors by name, as `torch.save(model.state_dict(), …)` writes it"
        )
    return dict(state)  # without the attributes that a file may give to its dict


def _is_whole(value: object) -> bool:
    """Whether it is a plain tensor with all its numbers in the file; a few of them can be stretched to any size."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.untyped_storage().nbytes() >= value.nbytes
    )


def ends(model: nn.Module) -> tuple[str, str]:
    """Names of the first convolution and of the last linear layer (or 1x1 convolution): the network's two ends.

    Raises:
        ValueError: it has none.
    """
    convs = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    heads = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)] or convs[-1:]
    if not convs:
        raise ValueError("the network has no convolution")
    return convs[0], heads[-1]


def load_pretrained(model: nn.Module, network: Network) -> None:
    """Load the backbone's pretrained weights, if the network asks for them; the classifier may be of other classes.

    `pretrained = true` takes those that torchvision or timm publish; a path is a state dict of the backbone.

    Raises:
        UserError: the weights cannot be downloaded, are not those of the run's plan, or of another network.
    """
    if network.pretrained is False:
        return
    if network.pretrained is True:
        state, place = _published(network), f"the published weights of {network.backbone}"
    else:
        check_weights(network)
        state, place = read_weights(Path(str(network.pretrained))), str(network.pretrained)
    own = model.state_dict()
    head = ends(model)[1]
    kept = {}
    for name, value in own.items():
        if name in state and state[name].shape == value.shape:
            kept[name] = state[name]
        elif not name.startswith(f"{head}.") and not name.endswith("num_batches_tracked"):
            there = f"is {tuple(state[name].shape)} there" if name in state else "is missing"
            raise UserError(f"{place}: not the weights of {network.backbone}: {name}, {tuple(value.shape)}, {there}")
    model.load_state_dict(kept, strict=False)


def _published(network: Network) -> State:
    name, where = network.backbone.partition(":")[2], library(network.backbone)
    try:
        if where == "torchvision":
            from torchvision import models

            return dict(models.get_model_weights(name)["DEFAULT"].get_state_dict(progress=False))
        import timm

        return dict(timm.create_model(name, pretrained=True).state_dict())
    except Exception as error:  # whatever a download that fails raises
        raise UserError(
            f"network.pretrained = true: the weights of {network.backbone} cannot be downloaded: {error}; fetch them on a "
            "machine with a connection and give their path instead of true"
        ) from error
