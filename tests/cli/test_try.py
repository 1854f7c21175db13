"""Under test: `senet-ablate try`, as the author of a block types it."""

import sys

import pytest
from click.testing import CliRunner
from studies import ABLATIONS

from senet_ablate.blocks.build import block_names
from senet_ablate.blocks.contract import CHECKS
from senet_ablate.cli.console import NOT_MET
from senet_ablate.cli.main import main

MINE = '''
import torch
from torch import nn


class Scale(nn.Module):
    """Each channel by a number of its own."""

    def __init__(self, channels, *, start=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1), start))

    def forward(self, x):
        return x * self.weight


class InPlace(Scale):
    def forward(self, x):
        return x.detach().mul_(0.5) + x * self.weight


class Variance(Scale):
    def forward(self, x):
        return super().forward(x) * x.flatten(2).var(2)[:, :, None, None]


class Breaks(Scale):
    def __init__(self, channels):
        raise RuntimeError("no such kernel")


class NeedsMore(Scale):
    def __init__(self, channels, heads):
        super().__init__(channels)


NUMBER = 7
'''


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine_to_try", raising=False)
    (tmp_path / "mine_to_try.py").write_text(MINE)
    return lambda *arguments: CliRunner().invoke(main, ["try", *arguments])


def line(output, check):
    (found,) = (line for line in output.splitlines() if line.strip().startswith(check))
    return " ".join(found.split())


def told(result):
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    return " ".join(result.stderr.split())


@pytest.mark.parametrize("block", block_names())
def test_every_block_of_ours_passes(invoke, block):
    result = invoke(block)
    assert result.exit_code == 0, result.output
    assert f"{block} passes: {len(CHECKS)} checks" in result.output
    assert "FAIL" not in result.output
    assert max(map(len, result.output.splitlines())) <= 110  # the grids are 80 wide; sentences wrap


def test_a_block_of_ones_own_is_tried_and_its_settings_reach_it(invoke):
    result = invoke("mine_to_try:Scale", "--set", "start=0.25", "--channels", "16")
    assert result.exit_code == 0, result.output
    assert "mine_to_try:Scale, 16 channels" in result.output
    assert line(result.output, "2,048") == "2,048 2,048 0 0"
    assert "Factor at the first step: 0.25" in result.output
    assert f"mine_to_try:Scale passes: {len(CHECKS)} checks, {len(CHECKS)} met, 0 noted, 0 failed." in result.output


def test_a_broken_block_fails_by_name_and_the_exit_code_says_so(invoke):
    result = invoke("mine_to_try:InPlace")
    assert result.exit_code == 1
    assert line(result.output, "leaves its input alone").startswith("leaves its input alone FAIL writes into its input")
    assert "mine_to_try:InPlace FAILS" in result.output
    result = invoke("mine_to_try:Variance")
    assert result.exit_code == 1
    assert "FAIL" in line(result.output, "finite output")
    assert "1x1" in result.output


def test_a_constructor_that_breaks_is_a_finding(invoke):
    result = invoke("mine_to_try:Breaks")
    assert result.exit_code == 1
    assert "RuntimeError: no such kernel" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cbm"], "no block 'cbm'; did you mean 'cbam'?"),
        (
            ["cbam", "--set", "ratio=3"],
            "try cbam --set ratio=3: block 'cbam' has no setting 'ratio'; allowed: reduction",
        ),
        (["cbam", "--set", "reduction=many"], "reduction = 'many': expected an integer of 1 or more"),
        (["cbam", "--channels", "8"], "reduction = 16 leaves no hidden channel of 8"),
        (["cbam", "--set", "reduction"], "--set 'reduction': expected KEY=VALUE, for example reduction=8"),
        (["not_there:Block"], "there is no module 'not_there'"),
        (["mine_to_try:Missing"], "mine_to_try has no 'Missing'"),
        (["mine_to_try:NUMBER"], "is no torch.nn.Module class"),
        (["mine_to_try:NeedsMore"], "heads"),
    ],
)
def test_a_mistake_in_the_call_is_told_in_one_line(invoke, arguments, message):
    assert message in told(invoke(*arguments))


def test_every_check_has_an_explanation_and_no_other():
    assert list(NOT_MET) == [name for name, *_ in CHECKS]


def test_the_example_of_an_own_block_passes(invoke, monkeypatch):
    monkeypatch.chdir(ABLATIONS.parent / "examples")
    result = invoke("own_block:PeakGate")
    assert result.exit_code == 0
    assert line(result.output, "64").startswith("64 128 0 25,088")  # w and b; peak and mean of 64 maps of 14x14
