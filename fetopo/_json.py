"""Results as JSON has them."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Dataclasses and dictionaries as dictionaries, arrays as lists; what is not finite becomes None."""
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
