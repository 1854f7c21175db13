"""Judge runs that were trained elsewhere, and read a finished study as pandas frames.

python examples/compare_runs.py
"""

import numpy as np
import pandas as pd

from senet_ablate import compare, load_study


def main() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare three variants by accuracy in percent, and two by which test images each run classified correctly."""
    by_accuracy = compare(
        {"no SE": [91.0, 91.4, 90.9], "SE": [91.9, 91.6, 92.2], "mine": [92.1, 92.6, 92.0]}, reference="no SE"
    )
    draw = np.random.default_rng(0)
    by_images = compare(
        {"no SE": [draw.random(2000) < 0.90 for _ in range(3)], "mine": [draw.random(2000) < 0.93 for _ in range(3)]}
    )
    return by_accuracy, by_images


def read(folder: str = "results/cifar10-lite") -> pd.DataFrame:
    """Table 10 of a study: variant, number of seeds, mean error and its difference to the reference."""
    return load_study(folder).table("ratio")[["label", "n", "top1_err_mean", "diff_to_reference", "diff_half"]]


if __name__ == "__main__":
    for frame in main():
        print(frame.round(2).to_string(), end="\n\n")
