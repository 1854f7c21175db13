"""Under test: the standard error and degrees of freedom of contrasts, against loops by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from noise_by_hand import CASES, LAYOUTS, PAIRINGS, by_hand, invented
from scatter import arm_of, fitted, with_ratios
from scipy import stats

CONTRASTS = [[1, -1, 0, 0], [0, 0, 1, -1], [0.25, -1, 0, 0.75], [1, -0.5, -0.5, 0], [-1, -1, 1, 1]]


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize(("layout", "seed"), CASES)
def test_a_contrast_is_what_loops_say(layout, seed, pairing):
    runs = invented(layout, seed)
    hand = by_hand(layout, seed, pairing)
    noise, for_new = (fitted(runs, pairing=pairing, estimand=of) for of in ("benchmark", "population"))
    for c in CONTRASTS:
        c = c + [0] * (len(runs) - 4)
        estimate, se, df, se_new, _ = hand.contrast(c)
        for offset in (0.0, 2.5):
            found = noise.contrast(dict(enumerate(c)), offset)
            assert found.estimate == pytest.approx(offset + estimate)
            assert (found.se, found.df, found.se_new_images) == pytest.approx((se, df, se_new))
            assert found.p_above() == pytest.approx(stats.t.sf((offset + estimate) / se, df))
            assert found.p_above(new_images=True) == pytest.approx(stats.t.sf((offset + estimate) / se_new, df))
            assert for_new.contrast(dict(enumerate(c)), offset).se == pytest.approx(se_new)


def test_the_paired_form_is_taken_where_it_is_shorter_and_only_there():
    taken = set()
    for case, c in product(CASES, CONTRASTS):
        c = c + [0] * (len(LAYOUTS[case[0]]) - 4)
        apart, shorter = (by_hand(*case, pairing).contrast(c) for pairing in ("none", "half"))
        found = fitted(invented(*case), pairing="half").contrast(dict(enumerate(c)))
        length, unpaired = (stats.t.isf(0.025, df) * se for se, df in ((found.se, found.df), apart[1:3]))
        if shorter[4]:
            assert length < unpaired * (1 - 1e-9)
        else:
            assert length == pytest.approx(unpaired)
        taken.add(shorter[4])
    assert taken == {True, False}


def test_a_contrast_is_never_surer_than_its_independent_part_allows():
    # Two arms that fail on the same images at the same seeds: without credit their means count as independent, but what
    # their sum has in common cannot be got rid of. B = 2 and 3 runs each, the third arm has other seeds.
    base = arm_of([12.0] * 3, 2.0, 1)
    runs = [
        base,
        {s: run + 1 for s, run in base.items()},
        {s + 5: run for s, run in arm_of([15.0] * 3, 2.0, 2).items()},
    ]
    noise = fitted(runs, pairing="none")
    sum_of_two = noise.contrast({0: 1.0, 1: 1.0, 2: -2.0})
    assert sum_of_two.se**2 == pytest.approx((2 + 2 + 2 * 2 + 4 * 2) / 3)  # not (2 + 2 + 4 * 2) / 3
    assert noise.contrast({0: 1.0, 2: -1.0}).se ** 2 == pytest.approx((2 + 2) / 3)


def test_new_images_add_the_scatter_of_the_difference_over_images_less_what_the_runs_explain():
    runs = with_ratios(1.0, 1.0, seeds=4)
    taste = np.random.default_rng(5).permutation(np.repeat([-40.0, 40.0], 25))
    runs[1] = {s: run + taste for s, run in runs[1].items()}
    found = fitted(runs, pairing="none").contrast({0: -1.0, 1: 1.0})
    # 40^2 / 50 images and nothing else but sampling of the image scatter: the independent part is 2 / 4.
    assert found.se_new_images**2 - found.se**2 == pytest.approx(40**2 / 49, rel=0.15)
    alike = fitted([runs[0], {s: run + 1 for s, run in with_ratios(1.0, seeds=4)[0].items()}], pairing="none")
    assert alike.contrast({0: -1.0, 1: 1.0}).se_new_images == pytest.approx(alike.contrast({0: -1.0, 1: 1.0}).se)
