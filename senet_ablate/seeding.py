"""Explicit random streams: every draw is keyed by seed and purpose, never by what was drawn before.

So two arms of one seed share the initial weights of the layers they have in common, the order of the images and
their augmentation, whatever else an arm adds, and a resumed run draws what the uninterrupted one would have.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # also for processes that never train
    import torch
    from torch import nn


def stream_seed(seed: int, *key: object) -> int:
    """A 63-bit seed for the stream that `key` names, e.g. `stream_seed(0, "order", epoch)`."""
    text = "/".join(map(str, (seed, *key)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *key: object) -> torch.Generator:
    """A CPU generator at the start of the stream that `key` names; the same numbers on every device."""
    import torch

    return torch.Generator().manual_seed(stream_seed(seed, *key))


@contextmanager
def forked(seed: int) -> Iterator[None]:
    """Within this context torch, NumPy and `random` draw from `seed`; afterwards they go on where they were."""
    import numpy as np
    import torch

    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - somebody's constructor may use it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002


def initialise(model: nn.Module, seed: int, prefix: str = "") -> None:
    """Draw all weights, each from the stream of its own name, so that layers two variants share start equal.

    `prefix` is the name of `model` in the network that it is part of.

    Convolutions: He et al. 2015, fan-out, normal (also the two SE layers; the authors say it does not matter there).
    Classifier: uniform within 1/sqrt(fan-in), torch's default for linear layers. Biases 0, normalisations 1 and 0.
    """
    import torch
    from torch import nn

    with torch.no_grad():
        for name, module in model.named_modules(prefix=prefix):
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
                module.weight.normal_(0, math.sqrt(2 / fan_out), generator=generator(seed, "weights", name))
            elif isinstance(module, nn.Linear):
                bound = 1 / math.sqrt(module.in_features)
                module.weight.uniform_(-bound, bound, generator=generator(seed, "weights", name))
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
                continue
            bias = getattr(module, "bias", None)
            if bias is not None:
                bias.zero_()
