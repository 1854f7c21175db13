"""How long a network takes, with torch's own benchmark timer: the block's complaint in the field is latency."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from senet_ablate import environment
from senet_ablate.models.build import build_network
from senet_ablate.models.fastconv import speed_up
from senet_ablate.results.records import Latency, Timing
from senet_ablate.spec.network import Variant
from senet_ablate.spec.protocol import DeviceKind, Protocol

ROUNDS = 6
"""The least and the largest of six rounds hold the median with a confidence of 97 %, whatever its distribution."""

LEAST_S = 0.2
"""Seconds that a round goes on with one kind of work of one network."""


def stopwatches(
    model: nn.Module, images: Mapping[str, Tensor], steps: Mapping[str, Tensor], *, bf16: bool, threads: int
) -> dict[str, Callable[[], float]]:
    """Functions that each measure milliseconds of one kind of work, eager.

    Args:
        model: the network, where it computes.
        images: batches (N, C, H, W) for inference, by the name of that kind of work.
        steps: batches for a whole training step: forward, backward, update.
        bf16: whether to compute under autocast.
        threads: processor threads.
    """
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)

    def infer(x: Tensor) -> None:
        model.eval()
        with torch.inference_mode(), torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            model(x)

    def step(x: Tensor) -> None:
        model.train()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(model(x), torch.zeros(len(x), dtype=torch.int64, device=x.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def milliseconds(work: Callable[[Tensor], None], x: Tensor) -> float:
        timer = Timer("work(x)", globals={"work": work, "x": x}, num_threads=threads)
        # Not `blocked_autorange`: a large overhead of its timer lets it go on for far longer than asked for.
        once = timer.timeit(1).mean
        return 1e3 * timer.timeit(math.ceil(LEAST_S / once)).mean

    works = [(infer, images), (step, steps)]
    return {name: partial(milliseconds, work, x) for work, batches in works for name, x in batches.items()}


def in_turn(
    watches: Mapping[str, Mapping[str, Callable[[], float]]], rounds: int, tell: Callable[[int], None]
) -> dict[str, dict[str, list[float]]]:
    """Measure each kind of work of each network once a round, so that a busy moment hits all; milliseconds by round."""
    found: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in kinds} for name, kinds in watches.items()}
    for number in range(rounds):
        for name, kinds in watches.items():
            for kind, measure in kinds.items():
                found[name][kind].append(measure())
        tell(number + 1)
    return found


def measure_latency(
    protocol: Protocol,
    variants: Sequence[Variant],
    shape: tuple[int, int],
    *,
    device: DeviceKind,
    precision: str,
    threads: int,
    optimisations: Collection[str] = (),
    tell: Callable[[int], None] = lambda done: None,
) -> Latency:
    """Measure inference of one image and of a batch, and a training step, of each network of a protocol.

    `shape` is (channels, classes); `optimisations` of the network are those in use;
    `tell` hears how many of the rounds are done.
    """
    channels, classes = shape
    side, batch = protocol.data.resolution, protocol.recipe.batch_size
    many = torch.randn(batch, channels, side, side, device=device).to(memory_format=torch.channels_last)
    images, steps = {"one_image": many[:1], "batch": many}, {"training_step": many}
    watches = {}
    for variant in variants:
        model = build_network(protocol.network, variant, in_channels=channels, classes=classes, resolution=side)
        model.to(device).to(memory_format=torch.channels_last)
        speed_up(model, optimisations)
        watches[variant.slug] = stopwatches(model, images, steps, bf16=precision == "bf16", threads=threads)
    found = in_turn(watches, ROUNDS, tell)
    return Latency(
        device=torch.cuda.get_device_name() if device == "cuda" else device,
        cpu=environment.cpu_model(),
        threads=threads,
        precision=precision,
        torch=torch.__version__,
        batch=batch,
        rounds=ROUNDS,
        networks={slug: {kind: Timing.of(times) for kind, times in kinds.items()} for slug, kinds in found.items()},
    )
