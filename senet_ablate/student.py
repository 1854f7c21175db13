"""Student's t with any degrees of freedom, infinity included; scipy.special spares the cost of scipy.stats' checks."""

from __future__ import annotations

import math

from scipy import special


def tail(t: float, df: float) -> float:
    """Probability of a value above `t`."""
    return float(special.ndtr(-t) if math.isinf(df) else special.stdtr(df, -t))


def quantile(p: float, df: float) -> float:
    """The value that is exceeded with probability `p`."""
    return -float(special.ndtri(p) if math.isinf(df) else special.stdtrit(df, p))
