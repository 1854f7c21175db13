"""Under test: the tables in `ablations/` hold what the paper prints, and their arms are the networks to train."""

import pytest
from studies import ABLATIONS

from senet_ablate.spec.ablation import SEED_SERIES, Ablation, Arm, Row, arms
from senet_ablate.spec.claims import Fewer, Retains
from senet_ablate.spec.loading import keep_rows, load_ablations, load_protocol
from senet_ablate.spec.network import Placement, SEConfig, Variant, differences


def se(placement: Placement = Placement(), **config) -> Variant:  # noqa: B008 (frozen)
    return Variant(se=SEConfig(**config), placement=placement)


def stage(number: int) -> Variant:
    return se(Placement(stages=(number,)))


def at(position: str) -> Variant:
    return se(Placement(position=position))


PLAIN, SE = Variant(), se()

# Tables 10 to 16 of arXiv 1709.01507: top-1 and top-5 error in percent, parameters in millions, GFLOPs.
PRINTED = {
    (10, "ratio", "se.reduction", "r16"): {
        "r2": (se(reduction=2), 22.29, 6.00, 45.7, None),
        "r4": (se(reduction=4), 22.25, 6.09, 35.7, None),
        "r8": (se(reduction=8), 22.26, 5.99, 30.7, None),
        "r16": (SE, 22.28, 6.03, 28.1, None),
        "r32": (se(reduction=32), 22.72, 6.20, 26.9, None),
        "original": (PLAIN, 23.30, 6.55, 25.6, None),
    },
    (11, "squeeze", "se.squeeze", "avg"): {
        "max": (se(squeeze="max"), 22.57, 6.09, None, None),
        "avg": (SE, 22.28, 6.03, None, None),
    },
    (12, "gate", "se.gate", "sigmoid"): {
        "relu": (se(gate="relu"), 23.47, 6.98, None, None),
        "tanh": (se(gate="tanh"), 23.00, 6.38, None, None),
        "sigmoid": (SE, 22.28, 6.03, None, None),
    },
    (13, "stage", "placement.stages", "all"): {
        "original": (PLAIN, 23.30, 6.55, 25.6, 3.86),
        "stage2": (stage(2), 23.03, 6.48, 25.6, 3.86),
        "stage3": (stage(3), 23.04, 6.32, 25.7, 3.86),
        "stage4": (stage(4), 22.68, 6.22, 26.4, 3.86),
        "all": (SE, 22.28, 6.03, 28.1, 3.87),
    },
    (14, "integration", "placement.position", "standard"): {
        "standard": (SE, 22.28, 6.03, None, None),
        "pre": (at("pre"), 22.23, 6.00, None, None),
        "post": (at("post"), 22.78, 6.35, None, None),
        "identity": (at("identity"), 22.20, 6.15, None, None),
    },
    (15, "inner", "placement.position", "standard"): {
        "standard": (SE, 22.28, 6.03, 28.1, 3.87),
        "inner-3x3": (at("inner-3x3"), 22.48, 6.02, 25.8, 3.86),
    },
    (16, "nosqueeze", "se.squeeze", "se"): {
        "original": (PLAIN, 23.30, 6.55, 25.6, 3.86),
        "nosqueeze": (se(squeeze="none"), 22.93, 6.39, 28.1, 4.27),
        "se": (SE, 22.28, 6.03, 28.1, 3.87),
    },
}


def test_every_declaration_loads_and_holds_the_printed_figures():
    loaded = {
        (ablation.table, ablation.slug, ablation.factor, ablation.reference): {
            row.id: (row.variant, *row.paper.model_dump().values()) for row in ablation.rows
        }
        for ablation in load_ablations(ABLATIONS)
    }
    assert loaded == PRINTED
    assert list(loaded) == list(PRINTED)  # in the order of the tables
    ours = ["attention", "controls", "gain", "length", "pruning", "ratio-per-stage", "start"]
    files = sorted([*ours, *(f"table{n}_{slug}" for n, slug, _, _ in PRINTED)])
    assert sorted(path.stem for path in ABLATIONS.glob("*.toml")) == files


def test_25_rows_share_17_networks():
    tables = load_ablations(ABLATIONS)
    served = arms(tables)
    assert len(served) == 17
    assert sum(len(table.rows) for table in tables) == 25
    assert sum(map(len, served.values())) == 25 + 4  # and the network without SE of the four that do not print it
    assert served[Arm(variant=SE)] == [
        "ratio:r16",
        "squeeze:avg",
        "gate:sigmoid",
        "stage:all",
        "integration:standard",
        "inner:standard",
        "nosqueeze:se",
    ]
    assert served[Arm(variant=PLAIN)] == [
        "ratio:original",
        "squeeze:plain",
        "gate:plain",
        "stage:original",
        "integration:plain",
        "inner:plain",
        "nosqueeze:original",
    ]


def test_a_table_with_claims_needs_the_network_without_se_that_it_does_not_print():
    needed = arms(load_ablations(ABLATIONS, ["squeeze"]))
    by_hand = {se(squeeze="max"): ["squeeze:max"], SE: ["squeeze:avg"], PLAIN: ["squeeze:plain"]}
    assert needed == {Arm(variant=variant): rows for variant, rows in by_hand.items()}


@pytest.mark.parametrize("rows", [["max"], ["max", "avg"]])
def test_with_chosen_rows_there_are_no_claims_and_no_network_that_only_claims_need(rows):
    (squeeze,) = keep_rows(load_ablations(ABLATIONS, ["squeeze"]), rows)
    assert squeeze.claims == ()
    assert arms([squeeze]) == {Arm(variant=se(squeeze="max")): ["squeeze:max"], Arm(variant=SE): ["squeeze:avg"]}


def test_the_controls_are_loaded_when_named_and_hold_these_rows():
    assert "controls" not in [table.slug for table in load_ablations(ABLATIONS)]
    ratio, controls = load_ablations(ABLATIONS, ["controls", "ratio"])  # the paper's tables come first
    assert (ratio.table, controls.table) == (10, None)
    assert (controls.name, controls.heading) == ("controls", "Controls")
    assert {row.id: (row.variant, row.first_seed) for row in controls.rows} == {
        "se": (SE, 0),
        "other-seeds": (SE, 1000),
        "constant": (se(gate="constant"), 0),
        "random": (se(gate="random"), 0),
        "ungated": (se(gate="none"), 0),
        "original": (PLAIN, 0),
    }
    assert [row.paper for row in controls.rows] == [None] * 6


def test_the_pruning_table_has_se_in_all_stages_in_all_but_the_last_and_in_none():
    (pruning,) = load_ablations(ABLATIONS, ["pruning"])
    without_last = Variant(se=SEConfig(), placement=Placement(stages=(2, 3, 4)))
    assert (pruning.table, pruning.reference) == (None, "se")
    assert {row.id: row.variant for row in pruning.rows} == {"se": SE, "no-stage5": without_last, "original": PLAIN}
    assert [(claim.id, claim.simple_atoms()) for claim in pruning.claims] == [
        (
            "pruning-last-stage",
            (  # 0.1 points are a tenth of the paper's gain, 23.30 - 22.28
                Retains(kind="retains", arm="no-stage5", share=0.9),
                Fewer(kind="fewer", quantity="params", arm="no-stage5", than="se"),
            ),
        )
    ]


def test_the_papers_tables_are_called_by_their_number():
    assert load_ablations(ABLATIONS, ["ratio"])[0].heading == "Table 10: Reduction ratio"


def test_an_arm_has_the_seeds_from_its_first_and_owns_a_series_of_them():
    arm, other = Arm(variant=SE), Arm(variant=SE, first_seed=1000)
    assert SEED_SERIES == 1000
    assert (arm.slug, other.slug) == ("se-r16", "se-r16@1000")
    assert [*arm.seeds(3)] == [0, 1, 2]
    assert [*other.seeds(3)] == [1000, 1001, 1002]
    seeds = (0, 999, 1000, 1999, 2000)
    assert [arm.owns(seed) for seed in seeds] == [True, True, False, False, False]
    assert [other.owns(seed) for seed in seeds] == [False, False, True, True, False]


def test_a_network_under_other_seeds_is_an_arm_of_its_own_with_runs_of_its_own():
    (controls,) = load_ablations(ABLATIONS, ["controls"])
    served, protocol = arms([controls]), load_protocol(ABLATIONS, "digits")
    assert served[Arm(variant=SE)] == ["controls:se"]
    assert served[Arm(variant=SE, first_seed=1000)] == ["controls:other-seeds"]
    runs = {
        name: [protocol.run_spec(controls.arm(name).variant, seed) for seed in controls.arm(name).seeds(3)]
        for name in ("se", "other-seeds")
    }
    assert [run.seed for run in runs["other-seeds"]] == [1000, 1001, 1002]
    assert runs["other-seeds"] == [run.model_copy(update={"seed": run.seed + 1000}) for run in runs["se"]]
    assert len({run.run_id for some in runs.values() for run in some}) == 6


def two_rows(*first_seeds: int) -> Ablation:
    """A table that holds the paper's block once under each first seed."""
    rows = tuple(
        Row(id=f"row-{number}", label="SE", se=SEConfig(), first_seed=first) for number, first in enumerate(first_seeds)
    )
    what = {"title": "T", "question": "?", "source": "ours", "factor": "se.gate"}
    return Ablation(slug="some", reference="row-0", rows=rows, **what)


def test_a_table_holds_a_network_twice_only_under_other_seeds():
    assert [arm.first_seed for arm in arms([two_rows(0, 1000, 2000)])] == [0, 1000, 2000]
    for twice in ((0, 0), (1000, 1000)):
        with pytest.raises(ValueError, match="rows 'row-0' and 'row-1' declare the same network"):
            two_rows(*twice)


def test_tables_can_be_chosen_by_slug_and_keep_the_order_of_their_numbers():
    assert [ablation.table for ablation in load_ablations(ABLATIONS, ["inner", "ratio", "inner"])] == [10, 15]


def test_rows_can_be_chosen_and_each_reference_stays():
    chosen = keep_rows(load_ablations(ABLATIONS, ["ratio", "gate"]), ["r2"])
    assert [[row.id for row in ablation.rows] for ablation in chosen] == [["r2", "r16"], ["sigmoid"]]


def test_differences_are_named_by_field():
    other = se(Placement(stages=(2,), position="pre"), gate="tanh", bias=True)
    assert differences(SE, other) == {"placement.stages", "placement.position", "se.gate", "se.bias"}
    assert differences(SE, SE) == set()
