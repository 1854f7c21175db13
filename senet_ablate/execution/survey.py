"""Build what no formula tells before anything is trained: size, cost and sites of each variant; does a step work?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from senet_ablate.errors import UserError
from senet_ablate.files import read_file, write_atomic
from senet_ablate.results.networks import Networks
from senet_ablate.spec.ablation import Ablation, arms
from senet_ablate.spec.cost import has_closed_form
from senet_ablate.spec.network import Network, Variant
from senet_ablate.spec.protocol import Protocol
from senet_ablate.spec.sources import UserCode


def survey_variants(
    ablations: Iterable[Ablation], protocol: Protocol, shape: tuple[int, int], results: Path, say: Callable[[str], None]
) -> None:
    """Keep size and cost of every variant of the tables beside the studies; torch is imported only if one is missing.

    `shape` is (channels of the images, classes).

    Raises:
        UserError: one line per variant that cannot be built, with the rows that name it.
    """
    known, mistakes, network = Networks(results), [], protocol.network
    task = (*shape, protocol.data.resolution)
    missing = {arm: rows for arm, rows in arms(ablations).items() if known.find(network, arm.variant, task) is None}
    if not missing:
        return
    from senet_ablate.models.survey import survey

    say(f"counting {len(missing)} variants of {network.backbone}, once")
    channels, classes, resolution = task
    for arm, rows in missing.items():
        try:
            found = survey(network, arm.variant, in_channels=channels, classes=classes, resolution=resolution)
        except Exception as error:  # whatever a constructor or a forward of somebody's raises
            kind = "" if isinstance(error, (ValueError, UserError)) else f"{type(error).__name__}: "
            mistakes.append(f"{', '.join(rows)}, under {protocol.name}: {kind}{error}")
        else:
            known.keep(network, arm.variant, task, found)
    if mistakes:
        raise UserError("\n".join(mistakes))


def keep_sources(ablations: Iterable[Ablation], network: Network, study: Path) -> None:
    """Keep the text of the user's code in `sources/<digest>/` of a study, to be read there and never imported."""
    named = {(arm.variant.block or "", arm.variant.source) for arm in arms(ablations)}
    named.add((network.backbone, network.source.partition("-")[0]))
    for name, digest in named:
        if ":" not in name or not digest:
            continue
        for module, path in UserCode(name).files.items():
            kept = study / "sources" / digest / f"{module}.py.txt"
            if not kept.exists():
                write_atomic(kept, read_file(path), inside=study)


def try_variants(ablations: Iterable[Ablation], network: Network, shape: tuple[int, int, int], batch: int) -> None:
    """Run one step of every variant that no formula knows, on random images, and look at what comes out.

    Raises:
        UserError: a variant fails, or gives something that is no number; the message names row and block.
    """
    mistakes = []
    for arm, rows in arms(ablations).items():
        if not has_closed_form(network, arm.variant) and (found := _try(network, arm.variant, shape, batch)):
            mistakes.append(f"{', '.join(rows)}: {found}")
    if mistakes:
        raise UserError("\n".join(mistakes))


def _try(network: Network, variant: Variant, shape: tuple[int, int, int], batch: int) -> str:
    """What goes wrong in a training step; empty if nothing does."""
    import torch

    from senet_ablate.models.build import build_network
    from senet_ablate.models.sites import inserts

    channels, classes, resolution = shape
    broken: list[str] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = torch.randn(batch, channels, resolution, resolution)
        # With its pretrained weights: a wrong file is an error here, and a download is done once.
        model = build_network(network, variant, in_channels=channels, classes=classes, resolution=resolution, seed=0)

        def listener(name: str, size: int) -> Callable[..., None]:
            def listen(module: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
                if inputs[0].isfinite().all() and not output.isfinite().all():
                    broken.append(f"{name} gives NaN or infinity on a map of {size}x{size} pixels")

            return listen

        for name, each in inserts(model).items():
            each.block.register_forward_hook(listener(name, each.site.size))
        try:
            logits = model(images)
            if not isinstance(logits, torch.Tensor) or logits.shape != (batch, classes):
                return f"the network gives {getattr(logits, 'shape', type(logits))}, no logits ({batch}, {classes})"
            loss = logits.logsumexp(1).sum()
            loss.backward()
        except Exception as error:  # whatever somebody's code raises
            return f"a training step fails: {type(error).__name__}: {error}"
    if not broken and not loss.isfinite():
        broken.append("the network gives NaN or infinity on random images")
    advice = "leave that stage out (placement.stages), or use larger images or network.unstrided"
    return f"{broken[0]}; {advice}" if broken else ""
