"""Find a block by its name and build it for a site: a file of this folder, or `package.module:Class` of the user's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from senet_ablate.errors import did_you_mean
from senet_ablate.spec.sources import import_object

ASKED = ("size", "stage", "index", "out_channels", "stride", "groups")
"""What a block is told of its site if it names it as a parameter: side of the map, stage, number within the stage;
in the place of a convolution also that convolution's."""

NOT_BLOCKS = ("base", "build", "contract", "counter")


def block_names() -> list[str]:
    """The blocks of this package: a file for each."""
    return sorted(
        file.stem for file in Path(__file__).parent.glob("*.py") if file.stem not in (*NOT_BLOCKS, "__init__")
    )


def block_class(name: str) -> type[nn.Module]:
    """The class of a block: `cbam` is the one in `senet_ablate/blocks/cbam.py`, `pkg.module:Class` is the user's.

    Raises:
        ValueError: there is no such block.
        UserError: the user's module cannot be imported, or has no such class.
    """
    if ":" in name:
        found = import_object(name)
    elif name in block_names():
        module = import_module(f"{__package__}.{name}")
        found = getattr(module, module.__all__[0])
    else:
        raise ValueError(f"no block {name!r}; {did_you_mean(name, block_names())}; or package.module:Class of your own")
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"block = {name!r} is no torch.nn.Module class, but {found!r}")
    return found


def build_block(
    name: str,
    channels: int,
    *,
    size: int,
    stage: int,
    index: int,
    replaced: nn.Conv2d | None = None,
    settings: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a block for maps (N, `channels`, `size`, `size`) in unit `index` of `stage`, or in place of `replaced`.

    Raises:
        ValueError: the block has no such setting, or refuses the value or the site; the message says which block.
    """
    block = block_class(name)
    settings = dict(settings or {})
    parameters = inspect.signature(block).parameters
    known = [key for key in list(parameters)[1:] if key not in ASKED[:3]]
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    for key in settings:
        if key not in known and not takes_all:
            raise ValueError(f"block {name!r} has no setting {key!r}; {did_you_mean(key, known)}")
    site = {"size": size, "stage": stage, "index": index}
    if replaced is not None:
        site |= {"out_channels": replaced.out_channels, "stride": replaced.stride[0], "groups": replaced.groups}
    told = {key: value for key, value in site.items() if key in parameters}
    try:
        return block(channels, **{**told, **settings})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"block {name!r} cannot be built for {channels} channels and maps of {size}x{size} (stage {stage}, unit "
            f"{index}): {error}"
        ) from error
