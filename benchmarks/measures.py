"""How errors are spread, and how far a confidence can be believed."""

from __future__ import annotations

from typing import Any

import numpy as np


def spread(errors: np.ndarray) -> dict[str, float]:
    """How many there are, their median and their 95th percentile."""
    if not len(errors):
        return {"count": 0}
    return {"count": len(errors), "median": float(np.median(errors)), "p95": float(np.quantile(errors, 0.95))}


def calibration(confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """The expected calibration error over ten bins of equal width, and the table behind it."""
    bins = np.minimum((confidence * 10).astype(int), 9)
    rows = [
        {
            "count": int(chosen.sum()),
            "confidence": float(confidence[chosen].mean()),
            "right": float(right[chosen].mean()),
        }
        for chosen in (bins == b for b in np.unique(bins))
    ]
    gaps = [row["count"] * abs(row["confidence"] - row["right"]) for row in rows]
    return {"ece": sum(gaps) / len(confidence), "bins": rows}
