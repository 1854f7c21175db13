"""Under test: claims as contrasts of mean errors, against arithmetic on plain numbers."""

import numpy as np
import pytest

from senet_ablate.analysis.contrasts import Contrast, TableContrasts
from senet_ablate.spec.ablation import Ablation, Arm, Row
from senet_ablate.spec.claims import Equivalent, NoDifference, Retains, Rules, Superior
from senet_ablate.spec.network import SEConfig, Variant

# A table that does not print the network without SE, one arm twice under other seeds, among arms of other tables.
TABLE = Ablation(
    slug="some",
    title="Some",
    question="?",
    factor="se.gate",
    reference="ref",
    source="ours",
    rows=(
        Row(id="ref", label="SE", se=SEConfig()),
        Row(id="again", label="SE, other seeds", se=SEConfig(), first_seed=1000),
        Row(id="tanh", label="Tanh", se=SEConfig(gate="tanh")),
        Row(id="relu", label="ReLU", se=SEConfig(gate="relu")),
    ),
)
FOREIGN = Arm(variant=Variant(se=SEConfig(reduction=2)))
ARMS = [TABLE.arm("relu"), FOREIGN, TABLE.arm("ref"), TABLE.arm("plain"), TABLE.arm("again"), TABLE.arm("tanh")]
# Mean errors in the order of the arms; an arm of another table may have none.
RELU, REF, PLAIN, AGAIN, TANH = 24.0, 20.0, 28.0, 20.5, 23.0
MEANS = np.array([RELU, np.nan, REF, PLAIN, AGAIN, TANH])
GAIN = 8.0  # 28 - 20


def contrasts(**rules) -> TableContrasts:
    return TableContrasts(TABLE, ARMS, Rules(**rules))


def values(some: tuple[Contrast, ...]) -> list[float]:
    return [contrast.at(MEANS) for contrast in some]


def test_the_gain_is_the_error_without_se_less_the_references():
    assert contrasts().gain.at(MEANS) == GAIN == PLAIN - REF


@pytest.mark.parametrize(
    ("worse", "better", "by_hand"),
    [("relu", "tanh", 1.0), ("tanh", "relu", -1.0), ("plain", "relu", 4.0), ("again", "ref", 0.5)],
)
def test_a_difference_is_worse_less_better(worse, better, by_hand):
    assert contrasts().difference(worse, better).at(MEANS) == by_hand


def test_other_rows_are_compared_with_the_reference():
    to_reference = contrasts().to_reference()
    assert {row: contrast.at(MEANS) for row, contrast in to_reference.items()} == {
        "again": 0.5,
        "tanh": 3.0,
        "relu": 4.0,
    }


@pytest.mark.parametrize("rho", [0.25, 0.5])
def test_superiority_wants_the_difference_and_its_margin_is_a_share_of_the_gain(rho):
    tested = contrasts(margin_rho=rho).tested(Superior(kind="superior", better="tanh", worse="relu"))
    assert tested.shown.at(MEANS) == 1.0
    assert values(tested.wanted) == [1.0]
    assert values(tested.margin) == [8 * rho - 1, 8 * rho + 1]


@pytest.mark.parametrize("rho", [0.125, 0.25])
def test_equivalence_wants_both_sides_of_the_difference_within_a_share_of_the_gain(rho):
    tested = contrasts(margin_rho=rho).tested(Equivalent(kind="equivalent", arms=("tanh", "relu")))
    assert tested.shown.at(MEANS) == -1.0
    assert values(tested.wanted) == values(tested.margin) == [8 * rho + 1, 8 * rho - 1]


def test_arms_further_apart_than_the_margin_are_below_zero_on_their_side():
    # tanh less the reference is 3 and the margin 2
    one, other = (
        contrasts().tested(Equivalent(kind="equivalent", arms=arms)) for arms in (("tanh", "ref"), ("ref", "tanh"))
    )
    assert values(one.wanted) == [-1.0, 5.0]
    assert values(other.wanted) == [5.0, -1.0]


@pytest.mark.parametrize(("arm", "share", "kept"), [("tanh", 0.5, 1.0), ("tanh", 0.75, -1.0), ("relu", 0.5, 0.0)])
def test_retention_wants_what_the_arm_gains_above_the_share_and_a_gain_at_all(arm, share, kept):
    # tanh gains 5 and relu 4 of 8
    tested = contrasts().tested(Retains(kind="retains", arm=arm, share=share))
    assert tested.shown.at(MEANS) == kept
    assert values(tested.wanted) == [kept, GAIN]
    assert tested.margin == ()


def test_a_null_comparison_wants_nothing_and_is_shown():
    tested = contrasts().tested(NoDifference(kind="no-difference", arm="again", than="ref"))
    assert tested.shown.at(MEANS) == 0.5
    assert (tested.wanted, tested.margin) == ((), ())


def test_an_absolute_margin_replaces_the_share_of_the_gain():
    judged = contrasts(margin_rho=0.25, margin_abs=1.5)
    superior = judged.tested(Superior(kind="superior", better="tanh", worse="relu"))
    assert values(superior.wanted) == [1.0]
    assert values(superior.margin) == [0.5, 2.5]
    equivalent = judged.tested(Equivalent(kind="equivalent", arms=("tanh", "relu")))
    assert values(equivalent.wanted) == values(equivalent.margin) == [2.5, 0.5]
    assert set(superior.margin[0].arms) == {0, 5}, "the gain has no part in it"
    assert values(judged.tested(Retains(kind="retains", arm="tanh", share=0.5)).wanted) == [1.0, GAIN]


def test_a_share_given_for_the_occasion_goes_before_both_margins():
    for rules in ({}, {"margin_abs": 1.5}):
        assert values(contrasts(**rules).within(contrasts().difference("relu", "tanh"), 0.5)) == [3.0, 5.0]


def test_the_family_of_an_atom_is_all_that_its_verdict_may_look_at():
    judged = contrasts()
    superior = judged.tested(Superior(kind="superior", better="tanh", worse="relu"))
    assert values(superior.family) == [1.0, 1.0, 1.0, 3.0]
    assert len({contrast.key for contrast in superior.family}) == 3
    retains = judged.tested(Retains(kind="retains", arm="tanh", share=0.5))
    assert values(retains.family) == [1.0, 1.0, 8.0]
    assert len({contrast.key for contrast in retains.family}) == 2


def test_a_contrast_names_the_arms_it_weighs_and_asks_no_other_for_a_mean():
    judged = contrasts()
    assert judged.gain.arms == [2, 3]
    assert judged.difference("relu", "tanh").arms == [0, 5]
    assert judged.within(judged.difference("relu", "ref"))[0].arms == [0, 2, 3]
    assert np.isnan(Contrast(np.ones(6)).at(MEANS)), "a mean that is asked for and missing is missing"


def test_contrasts_add_subtract_and_scale_with_their_offsets():
    one, other = Contrast(np.array([1.0, -1.0, 0.0]), 2.0), Contrast(np.array([0.0, 3.0, 1.0]), -0.5)
    means = np.array([10.0, 4.0, 7.0])
    assert (one.at(means), other.at(means)) == (8.0, 18.5)
    assert (one + other).at(means) == 26.5
    assert (one - other).at(means) == -10.5
    assert (-one).at(means) == -8.0
    assert (0.5 * other).at(means) == 9.25


BASE = Contrast(np.array([0.0, 1.0, -0.25, -0.75]), 0.5)


def test_the_key_of_a_contrast_does_not_depend_on_its_sign_or_on_rounding():
    assert BASE.key == (-BASE).key
    assert Contrast(np.array([1.0, -1.0])).key == Contrast(np.array([-1.0, 1.0])).key
    assert Contrast(np.array([0.1 + 0.2, -1.0])).key == Contrast(np.array([0.3, -1.0])).key
    assert hash(BASE.key) == hash((-BASE).key)


@pytest.mark.parametrize(
    "other",
    [
        Contrast(BASE.weights),
        Contrast(BASE.weights, -BASE.offset),
        Contrast(-BASE.weights, BASE.offset),
        Contrast(BASE.weights[[0, 1, 3, 2]], BASE.offset),
        Contrast(np.abs(BASE.weights), BASE.offset),
        2 * BASE,
    ],
    ids=["offset", "offset-sign", "weights-sign", "arms", "signs", "scale"],
)
def test_different_contrasts_have_different_keys(other):
    assert other.key != BASE.key


def test_both_sides_of_a_margin_are_different_contrasts():
    for rules in ({}, {"margin_abs": 1.5}):
        judged = contrasts(**rules)
        above, below = judged.within(judged.difference("relu", "tanh"))
        assert above.key != below.key
        swapped = judged.within(judged.difference("tanh", "relu"))
        assert {contrast.key for contrast in swapped} == {above.key, below.key}
