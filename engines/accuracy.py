"""How far one tensor lies from another."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def distance(found: Array, wanted: Array) -> float:
    """1 - cosine of two tensors as one vector each; 1 where the shapes differ or a value is not finite."""
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return 1.0
    a, b = found.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
    return float(1 - a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-300))


def relative(found: Array, wanted: Array) -> float:
    """Largest difference over the largest wanted value; infinite where the shapes differ or a value is not finite."""
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf")
    away = np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max()
    return float(away / max(float(np.abs(wanted).max()), 1e-300))
