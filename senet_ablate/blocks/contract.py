"""What a block must be so that a protocol can judge it, checked in about a second: ours or a user's.

A block maps (N, C, H, W) to the same shape, leaves its input alone, is finite and trains on maps of 1x1 to 14x14, and
depends on nothing but its input, its weights and the random generator. All checks but those of the first step are made
on weights that were moved a little from where they start: a block that starts as the identity hides what it will do.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import torch
from torch import Tensor, nn

from senet_ablate.blocks.counter import CostCounter

Make = Callable[[int, int], nn.Module]
"""Builds the block for C channels on maps of a side."""

SIDES = (1, 2, 7, 14)
WIDTHS = (64, 128, 256, 512, 1024, 2048)
SIDE = 14
"""Where cost, factor and all that does not depend on the map are checked."""


class Verdict(Enum):
    """What a check came to: `FAIL` breaks the contract, `NOTE` is worth knowing."""

    PASS = "pass"
    NOTE = "note"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One check: its name, verdict, where it is not met (sides or names), and what was raised."""

    check: str
    verdict: Verdict
    where: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class BlockCost:
    """At a width, on one map of `SIDE`: parameters, multiply-adds by weights, elements read by reductions."""

    channels: int
    params: int = 0
    macs: int = 0
    reads: int = 0
    error: str = ""


@dataclass(frozen=True)
class ContractReport:
    """All findings, costs, and the factor at the first step (None if the block cannot be run)."""

    findings: tuple[Finding, ...]
    costs: tuple[BlockCost, ...]
    factor: float | None

    @property
    def passed(self) -> bool:
        """Whether no check fails."""
        return all(finding.verdict is not Verdict.FAIL for finding in self.findings)


@dataclass
class Subject:
    """The block under check: fresh copies of it, and images of N(0, 1)."""

    make: Make
    channels: int
    # Apart from the weights' stream: images drawn from the same numbers are correlated with them.
    stream: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(1709_01507))

    def fresh(self, side: int = SIDE, seed: int = 0) -> nn.Module:
        """As it starts."""
        torch.manual_seed(seed)
        return self.make(self.channels, side)

    def block(self, side: int = SIDE, *, training: bool = False, seed: int = 0) -> nn.Module:
        """With weights moved a little."""
        block = self.fresh(side, seed)
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return block.train(training)

    def images(self, side: int = SIDE, width: int | None = None, count: int = 4) -> Tensor:
        """(count, C, side, width or side); a new draw each time."""
        return torch.randn(count, self.channels, side, width or side, generator=self.stream)

    @cached_property
    def refused(self) -> dict[int, Exception]:
        """What building raised, by side."""
        raised = {}
        for side in SIDES:
            try:
                self.fresh(side)
            except Exception as error:
                raised[side] = error
        return raised

    @property
    def sides(self) -> list[int]:
        """Where it could be built."""
        return [side for side in SIDES if side not in self.refused]


def _run(block: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What it gives under one seed, so that only what is checked differs; the images stay what they are."""
    torch.manual_seed(1)
    return block(x.clone())


def _named(side: int) -> str:
    return f"{side}x{side}"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _equal(one: Tensor, other: Tensor) -> bool:
    """To within rounding: another layout or batch may sum in another order."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)


def _everywhere(subject: Subject, broken: Callable[[nn.Module, Tensor], bool]) -> Iterator[str]:
    """The sides at which a block in evaluation or training is broken."""
    for side in subject.sides:
        if any(broken(subject.block(side, training=training), subject.images(side)) for training in (False, True)):
            yield _named(side)


def _gradients(subject: Subject, side: int, *, dead: bool = False) -> Iterator[tuple[str, Tensor | None]]:
    block = subject.block(side, training=True)
    x = (torch.zeros_like if dead else torch.clone)(subject.images(side, count=8)).requires_grad_()
    out = block(x)
    loss = (out * torch.randn_like(out)).sum()
    if loss.requires_grad:
        loss.backward()
    yield "input", x.grad
    yield from ((name, weight.grad) for name, weight in block.named_parameters() if weight.requires_grad)


# Each check yields where it is not met; what it raises counts as not met.


def _built(subject: Subject) -> Iterator[str]:
    raised: dict[str, list[str]] = {}
    for side, error in subject.refused.items():
        if side == SIDE or not isinstance(error, ValueError):
            raised.setdefault(_one_line(error), []).append(_named(side))
    return (f"{', '.join(sides)}: {error}" for error, sides in raised.items())


def _any_side(subject: Subject) -> Iterator[str]:
    refused = subject.refused.items()
    return (f"{_named(side)}: {error}" for side, error in refused if isinstance(error, ValueError))


def _first_weights(subject: Subject) -> Iterator[str]:
    one, other = (subject.fresh().state_dict() for _ in range(2))
    yield from (name for name, value in one.items() if not torch.equal(value, other[name]))


def _shape(subject: Subject) -> Iterator[str]:
    def changed(block: nn.Module, x: Tensor) -> bool:
        out = block(x)
        return out.shape != x.shape or out.dtype != x.dtype

    return _everywhere(subject, changed)


def _input_kept(subject: Subject) -> Iterator[str]:
    def changed(block: nn.Module, x: Tensor) -> bool:
        before = x.clone()
        block(x)
        return not torch.equal(x, before)

    return _everywhere(subject, changed)


def _finite(subject: Subject) -> Iterator[str]:
    yield from _everywhere(subject, lambda block, x: not bool(block(x).isfinite().all()))
    if not subject.block()(torch.zeros_like(subject.images())).isfinite().all():
        yield "a map of zeros"


def _gradients_arrive(subject: Subject) -> Iterator[str]:
    return (name for name, gradient in _gradients(subject, SIDE) if gradient is None)


def _gradients_finite(subject: Subject) -> Iterator[str]:
    cases = [(side, False, _named(side)) for side in subject.sides] + [(SIDE, True, "a map of zeros")]
    for side, dead, name in cases:
        found = [gradient for _, gradient in _gradients(subject, side, dead=dead) if gradient is not None]
        if not all(gradient.isfinite().all() for gradient in found):
            yield name


def _gradients_not_zero(subject: Subject) -> Iterator[str]:
    return (name for name, gradient in _gradients(subject, SIDE) if gradient is not None and not gradient.any())


def _same_in_eval(subject: Subject) -> Iterator[str]:
    block, x = subject.block(), subject.images()
    if not torch.equal(block(x.clone()), block(x.clone())):
        yield "two calls"


def _same_in_training(subject: Subject) -> Iterator[str]:
    x = subject.images()
    if not torch.equal(*(_run(subject.block(training=True), x) for _ in range(2))):
        yield "two calls under one seed"


def _independent(subject: Subject, *, training: bool) -> Iterator[str]:
    x = subject.images()
    others = torch.cat([x[:1], subject.images()[1:]])
    if not _equal(*(_run(subject.block(training=training), batch)[0] for batch in (x, others))):
        yield "the first of four images"


def _batch_of_one(subject: Subject) -> Iterator[str]:
    subject.block(training=True)(subject.images(count=1))
    return iter(())


def _autocast(subject: Subject) -> Iterator[str]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = subject.images().requires_grad_()
        out = subject.block(training=True)(x.clone())
    if out.requires_grad:
        out.float().sum().backward()
    if not all(found.isfinite().all() for found in (out, x.grad) if found is not None):
        yield _named(SIDE)


def _not_square(subject: Subject) -> Iterator[str]:
    x = subject.images(SIDE, SIDE // 2)
    if subject.block()(x).shape != x.shape:
        yield f"{SIDE}x{SIDE // 2}"


def _channels_last(subject: Subject) -> Iterator[str]:
    block, x = subject.block(), subject.images()
    if not _equal(_run(block, x), _run(block, x.to(memory_format=torch.channels_last))):
        yield _named(SIDE)


def _copied(subject: Subject, duplicate: Callable[[nn.Module], nn.Module]) -> Iterator[str]:
    block, x = subject.block(), subject.images()
    if not torch.equal(_run(block, x), _run(duplicate(block), x)):
        yield "another output"


def _loaded(subject: Subject, block: nn.Module) -> nn.Module:
    other = subject.block(seed=1)
    other.load_state_dict(block.state_dict())
    return other


def _gate(subject: Subject) -> Iterator[str]:
    block, x = subject.block(), subject.images()
    excitation = getattr(block, "excitation", None)
    if excitation is not None and not _equal(x * _run(excitation, x), _run(block, x)):
        yield "x * excitation(x)"


CHECKS: tuple[tuple[str, Verdict, Callable[[Subject], Iterator[str]]], ...] = (
    ("is built", Verdict.FAIL, _built),
    ("takes every map size", Verdict.NOTE, _any_side),
    ("initial weights by seed", Verdict.FAIL, _first_weights),
    ("keeps shape and dtype", Verdict.FAIL, _shape),
    ("leaves its input alone", Verdict.FAIL, _input_kept),
    ("finite output", Verdict.FAIL, _finite),
    ("gradients arrive", Verdict.FAIL, _gradients_arrive),
    ("finite gradients", Verdict.FAIL, _gradients_finite),
    ("no gradient is zero", Verdict.NOTE, _gradients_not_zero),
    ("same output in evaluation", Verdict.FAIL, _same_in_eval),
    ("same output in training", Verdict.FAIL, _same_in_training),
    ("images apart in evaluation", Verdict.FAIL, lambda subject: _independent(subject, training=False)),
    ("images apart in training", Verdict.NOTE, lambda subject: _independent(subject, training=True)),
    ("trains on a batch of one", Verdict.NOTE, _batch_of_one),
    ("bfloat16 autocast", Verdict.FAIL, _autocast),
    ("maps that are not square", Verdict.NOTE, _not_square),
    ("channels-last memory", Verdict.FAIL, _channels_last),
    ("deepcopy", Verdict.FAIL, lambda subject: _copied(subject, copy.deepcopy)),
    ("pickle", Verdict.FAIL, lambda subject: _copied(subject, lambda block: pickle.loads(pickle.dumps(block)))),
    ("state dict", Verdict.FAIL, lambda subject: _copied(subject, lambda block: _loaded(subject, block))),
    ("excitation is the gate", Verdict.NOTE, _gate),
)
"""Name, what it means if it is not met, and the check."""


def _judge(subject: Subject, name: str, severity: Verdict, check: Callable[[Subject], Iterator[str]]) -> Finding:
    torch.manual_seed(2)
    try:
        where = tuple(check(subject))
    except Exception as error:
        return Finding(name, severity, error=_one_line(error))
    return Finding(name, severity if where else Verdict.PASS, where)


def _cost(make: Make, channels: int) -> BlockCost:
    try:
        block = make(channels, SIDE).eval()
        # With gradients on: without, torch's own attention is one operator that nobody counts.
        with CostCounter() as counted:
            block(torch.zeros(1, channels, SIDE, SIDE))
    except Exception as error:
        return BlockCost(channels, error=_one_line(error))
    params = sum(parameter.numel() for parameter in block.parameters() if parameter.requires_grad)
    return BlockCost(channels, params, counted.macs, counted.reads)


def first_factor(subject: Subject) -> float | None:
    """The least-squares factor from input to output, <y, x> / <x, x>, of the block as it starts."""
    x = subject.images(count=16)
    try:
        with torch.no_grad():
            return float((subject.fresh().train()(x) * x).sum() / x.square().sum())
    except Exception:
        return None  # what was raised is among the findings


def check_block(make: Make, channels: int = 64) -> ContractReport:
    """Check a block of C channels against the contract, and count its cost at C = 64 to 2,048.

    `make(channels, side)` builds it for maps of side x side. The caller's random state is left as it is.

    Example:
        >>> check_block(lambda channels, side: nn.Identity()).passed
        True
    """
    subject = Subject(make, channels)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built = _judge(subject, *CHECKS[0])
        if SIDE not in subject.sides:
            return ContractReport((built,), (), None)
        findings = (built, *(_judge(subject, *check) for check in CHECKS[1:]))
        return ContractReport(findings, tuple(_cost(make, width) for width in WIDTHS), first_factor(subject))
