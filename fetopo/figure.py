"""What every picture needs, and nothing that needs DOLFINx: a figure without a window, units of length."""

from __future__ import annotations

from typing import Any


def new_figure(width: float = 6.4, height: float = 4.8) -> Any:
    """A Matplotlib figure that belongs to no window."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need Matplotlib: install fetopo[plot]") from error
    return Figure(figsize=(width, height), layout="compressed")


def plain_ticks(axis: Any) -> None:
    """Numbers on a logarithmic axis that spans about one decade as 0.3 and 20, not as powers of ten."""
    for place in (axis.set_major_formatter, axis.set_minor_formatter):
        place(lambda value, position: f"{value:g}")


def length_unit(largest: float) -> tuple[str, float]:
    """Label and size of the unit for lengths up to `largest` metres; lengths of order one are shown bare."""
    for name, size in (("nm", 1e-9), ("µm", 1e-6), ("mm", 1e-3)):
        if largest < 0.5e3 * size:
            return f" ({name})", size
    return "", 1.0
