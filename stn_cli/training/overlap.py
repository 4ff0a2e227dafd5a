"""How much two frames have in common."""

import math

import cv2
import numpy as np


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two convex quadrangles (4, 2), as in `border 2x2`; NaN where one is unknown."""
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return math.nan
    first, second = polygons = [cv2.convexHull(corners.astype(np.float32)) for corners in (one, other)]
    common = cv2.intersectConvexConvex(first, second)[0]
    union = sum(cv2.contourArea(polygon) for polygon in polygons) - common
    return float(common / union) if union > 0 else 0.0
