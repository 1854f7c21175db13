"""Under test: the contract of blocks. Each fault is found by name; what is only worth knowing is no fault."""

import pytest
import torch
from torch import nn

from senet_ablate.blocks.cbam import CBAM
from senet_ablate.blocks.contract import CHECKS, SIDE, WIDTHS, Verdict, check_block
from senet_ablate.blocks.counter import CostCounter
from senet_ablate.blocks.simam import SimAM


def unseeded():
    generator = torch.Generator()
    generator.seed()
    return generator


class Sound(nn.Module):
    """x * sigmoid(W mean(x)): what the faulty ones differ from in one thing each."""

    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def excitation(self, x):
        return torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)))

    def forward(self, x):
        return x * self.excitation(x)


class Pooled(Sound):
    def forward(self, x):
        return super().forward(x)[:, :, ::2]


class OfDoubles(Sound):
    def forward(self, x):
        return super().forward(x).double()


class InPlace(Sound):
    def forward(self, x):
        return (x.detach().mul_(0.5) + x) * self.excitation(x)


class NoVariance(Sound):
    def forward(self, x):
        return super().forward(x) * (1 + x.flatten(2).var(2)[:, :, None, None])


class NoRootAtZero(Sound):
    def excitation(self, x):
        return torch.sigmoid(self.fc(x.square().mean((2, 3), keepdim=True).sqrt()))


class Detached(Sound):
    def excitation(self, x):
        return super().excitation(x).detach()


class TakesTheLargest(Sound):
    def excitation(self, x):
        return super().excitation(x).round()


class Noisy(Sound):
    def forward(self, x):
        return super().forward(x) + torch.rand(())


class OwnDice(Sound):
    def forward(self, x):
        return super().forward(x) * (1 + (self.training * torch.rand((), generator=unseeded())))


class OwnStart(Sound):
    def __init__(self, channels):
        super().__init__(channels)
        nn.init.uniform_(self.fc.weight, generator=unseeded())


class SinglePrecision(Sound):
    def forward(self, x):
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("half precision is not for me")
        return super().forward(x)


class MixesBatch(Sound):
    def excitation(self, x):
        return torch.sigmoid(self.fc(x.mean((0, 2, 3), keepdim=True))).expand(x.shape[0], -1, -1, -1)


class Views(Sound):
    def excitation(self, x):
        return torch.sigmoid(self.fc(x.view(len(x), -1).view(*x.shape[:2], -1).mean(2)[:, :, None, None]))


class HoldsALambda(Sound):
    def __init__(self, channels):
        super().__init__(channels)
        self.gate = lambda u: u.sigmoid()


class Remembers(Sound):
    """Part of what it computes with is no part of its state."""

    def __init__(self, channels):
        super().__init__(channels)
        self.register_buffer("offset", torch.randn(()), persistent=False)

    def excitation(self, x):
        return super().excitation(x) + self.offset


class NotCopied(Sound):
    def __deepcopy__(self, memo):
        raise TypeError("there is only one of me")


class OnlySquare(Sound):
    def forward(self, x):
        if x.shape[2] != x.shape[3]:
            raise ValueError("maps have to be square")
        return super().forward(x)


class NormalisesTheSqueezed(Sound):
    def __init__(self, channels):
        super().__init__(channels)
        self.fc = nn.Sequential(self.fc, nn.BatchNorm2d(channels))


class SaysAnotherGate(Sound):
    def forward(self, x):
        return x + super().forward(x)


class Unused(Sound):
    def __init__(self, channels):
        super().__init__(channels)
        self.spare = nn.Linear(2, 2)


def names(block, verdict):
    report = check_block(lambda channels, side: block(channels))
    assert report.passed == all(finding.verdict is not Verdict.FAIL for finding in report.findings)
    return {finding.check for finding in report.findings if finding.verdict is verdict}


@pytest.mark.parametrize(
    ("block", "faults"),
    [
        (Sound, set()),
        (Pooled, {"keeps shape and dtype"}),
        (OfDoubles, {"keeps shape and dtype"}),
        (InPlace, {"leaves its input alone"}),
        (NoVariance, {"finite output", "finite gradients"}),
        (NoRootAtZero, {"finite gradients"}),
        (Detached, {"gradients arrive"}),
        (Unused, {"gradients arrive"}),
        (Noisy, {"same output in evaluation"}),
        (OwnDice, {"same output in training"}),
        (OwnStart, {"initial weights by seed", "same output in training", "images apart in evaluation"}),
        (SinglePrecision, {"bfloat16 autocast"}),
        (MixesBatch, {"images apart in evaluation"}),
        (Views, {"channels-last memory"}),
        (HoldsALambda, {"pickle"}),
        (Remembers, {"state dict"}),
        (NotCopied, {"deepcopy"}),
    ],
)
def test_a_fault_is_found_by_name(block, faults):
    assert names(block, Verdict.FAIL) == faults


@pytest.mark.parametrize(
    ("block", "notes"),
    [
        (Sound, set()),
        (TakesTheLargest, {"no gradient is zero"}),
        (OnlySquare, {"maps that are not square"}),
        (NormalisesTheSqueezed, {"images apart in training", "trains on a batch of one"}),
        (SaysAnotherGate, {"excitation is the gate"}),
    ],
)
def test_what_is_worth_knowing_is_no_fault(block, notes):
    assert names(block, Verdict.NOTE) == notes
    assert names(block, Verdict.FAIL) == set()


def test_it_says_where():
    findings = {f.check: f for f in check_block(lambda channels, side: NoVariance(channels)).findings}
    assert findings["finite output"].where == ("1x1",)
    assert findings["finite gradients"].where == ("1x1",)
    unused = {f.check: f for f in check_block(lambda channels, side: Unused(channels)).findings}["gradients arrive"]
    assert unused.where == ("spare.weight", "spare.bias")
    raised = {f.check: f for f in check_block(lambda channels, side: SinglePrecision(channels)).findings}
    assert raised["bfloat16 autocast"].error == "RuntimeError: half precision is not for me"


def test_a_size_that_is_refused_is_a_note_and_a_crash_is_a_fault():
    def crashing(channels, side):
        if side == 2:
            raise ZeroDivisionError("division by zero")
        return SimAM(channels, size=side)

    report = check_block(crashing)
    found = {finding.check: finding for finding in report.findings}
    assert found["is built"].where == ("2x2: ZeroDivisionError: division by zero",)
    assert found["is built"].verdict is Verdict.FAIL
    (note,) = found["takes every map size"].where
    assert note.startswith("1x1: simam on maps of 1x1")
    assert found["finite output"].verdict is Verdict.PASS, "of the sizes that it takes"
    assert not report.passed


def test_a_block_that_cannot_be_built_is_told_at_once():
    report = check_block(lambda channels, side: CBAM(channels), channels=8)
    (finding,) = report.findings
    assert finding.check == "is built"
    assert "reduction = 16 leaves no hidden channel of 8" in " ".join(finding.where)
    assert (report.passed, report.costs, report.factor) == (False, (), None)


def test_cost_and_factor_are_those_of_the_block():
    report = check_block(lambda channels, side: Sound(channels))
    assert [cost.channels for cost in report.costs] == list(WIDTHS)
    for cost in report.costs:
        c = cost.channels
        assert (cost.params, cost.macs, cost.reads, cost.error) == (c * c + c, c * c, c * SIDE**2, "")
    assert report.factor == pytest.approx(0.5, abs=0.01)


def test_a_width_that_cannot_be_counted_says_why():
    report = check_block(lambda channels, side: CBAM(channels, reduction=128), channels=128)
    assert report.costs[0].error == "ValueError: reduction = 128 leaves no hidden channel of 64: expected 1 to 64"
    assert report.costs[1].params == 2 * 128 + 1 + 128 + 98 + 2


def test_the_random_state_of_the_caller_stays():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    check_block(lambda channels, side: Sound(channels))
    assert torch.equal(torch.rand(3), expected)


def test_every_check_has_a_name_of_its_own_and_a_verdict():
    assert len({name for name, *_ in CHECKS}) == len(CHECKS)
    assert {severity for _, severity, _ in CHECKS} == {Verdict.NOTE, Verdict.FAIL}


def test_attention_between_pixels_is_counted():
    attention = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    x = torch.zeros(1, 10, 16)
    with CostCounter() as counted:
        attention(x, x, x, need_weights=False)
    # Four projections of 16 x 16 for 10 pixels; scores and their use, 10 x 10 x 16 each.
    assert (counted.macs, counted.reads) == (4 * 16 * 16 * 10 + 2 * 10 * 10 * 16, 0)


def test_only_reductions_read():
    x = torch.zeros(1, 4, 6, 6)
    with CostCounter() as counted:
        _ = torch.maximum(x, x) + x.max(x) + x.softmax(1) + nn.functional.batch_norm(x, None, None, training=True)
    assert (counted.macs, counted.reads) == (0, 0)
    with CostCounter() as counted:
        nn.functional.adaptive_avg_pool2d(x, 1)
        nn.functional.max_pool2d(x, 2)
        x.max(1)
        x.std((2, 3))
    assert counted.reads == 4 * x.numel()
