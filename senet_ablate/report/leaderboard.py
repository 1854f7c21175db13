"""A line per block and study, to be put under one another: error, difference to SE, cost, and what was found."""

from __future__ import annotations

import pandas as pd

from senet_ablate.report.tables import Table
from senet_ablate.report.words import WORDS
from senet_ablate.spec.claims import Superior

KEPT = {
    "label": "block",
    "n": "n",
    "top1_err_mean": "top1_err",
    "top1_err_half": "top1_err_half",
    "diff_to_reference": "diff_to_se",
    "diff_half": "diff_to_se_half",
    "params": "params",
    "macs": "macs",
    "one_image_ms": "one_image_ms",
    "one_image_ms_low": "one_image_ms_low",
    "one_image_ms_high": "one_image_ms_high",
}


def leaderboard(table: Table, study: str) -> pd.DataFrame:
    """The blocks of the attention table that have runs, the lowest error first.

    Columns beside those of `KEPT`: study, protocol, data, network, epochs, and for each kind of row that a block is
    said to beat (`se`, `no_se`, `constant`) whether that holds here, fails here or is open.
    """
    protocol = table.pin.protocol
    setting = {
        "study": study,
        "protocol": protocol.name,
        "data": f"{protocol.images_name} {protocol.data.resolution}px",
        "network": protocol.network.backbone,
        "epochs": protocol.recipe.epochs,
    }
    found: dict[str, dict[str, str]] = {}
    for finding in table.findings:
        for atom in finding.atoms:
            if isinstance(atom.atom, Superior):
                found.setdefault(atom.atom.better, {})[_kind(table, atom.atom.worse)] = WORDS[atom.verdict]
    lines = [
        setting
        | {name: line[key] for key, name in KEPT.items()}
        | {f"beats_{kind}": found.get(line["row"], {}).get(kind, "") for kind in ("se", "no_se", "constant")}
        for line in table.frame.to_dict("records")
        if line["n"]
    ]
    return pd.DataFrame(lines).sort_values("top1_err", kind="stable") if lines else pd.DataFrame(lines)


def _kind(table: Table, row: str) -> str:
    variant = table.ablation.arm(row).variant
    return "no_se" if variant.is_plain else "se" if variant.se else "constant"
