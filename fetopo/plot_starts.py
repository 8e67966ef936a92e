"""Structures from several starts side by side, with how far each is from each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fetopo.design.uniqueness import StartsResult
from fetopo.figure import length_unit, new_figure
from fetopo.report_starts import family_name, shown_interval, shown_value, starts_headline

_LIGHT, _DARK, _POOR = "#f2efe6", "#1f4e79", "#8a8a8a"

#: Structures that a picture shows at most, and how many in a row.
SHOWN, COLUMNS = 12, 4


def save_starts(path: str | Path, result: StartsResult, lengths: Sequence[float], *, title: str = "") -> None:
    """Picture of a comparison: the structures, family by family, and the matrix of their distances.

    In 2D each is repeated 2×2, with one cell outlined; those without the property are grey.

    Args:
        path: file to write.
        result: what to draw; structures beyond the best twelve are in the matrix only.
        lengths: edges of the cell.
        title: first line above the picture.
    """
    shown = result.order[:SHOWN]
    rows = -(-len(shown) // COLUMNS)
    columns = -(-len(shown) // rows)
    height, beside = max(3.5 * rows, 5.0), 5.6
    figure = new_figure(2.75 * columns + beside, height + 0.8)
    left, right = figure.subfigures(1, 2, width_ratios=[2.75 * columns, beside])
    places = np.atleast_1d(left.subplots(rows, columns)).ravel()
    for axes in places[len(shown) :]:
        axes.set_axis_off()
    for axes, index in zip(places, shown, strict=False):
        _structure(axes, result, index, lengths)
    _matrix(right.subplots(), result)
    unit, scale = length_unit(max(lengths))
    edges = " × ".join(f"{a / scale:.3g}" for a in lengths) + unit.replace("(", "").replace(")", "")
    how = f"2 × 2 cells of {edges}" if len(lengths) == 2 else f"cells of {edges}"
    figure.suptitle("\n".join(line for line in (title, f"{starts_headline(result)}; {how}") if line))
    figure.savefig(path, dpi=110)


def _structure(axes: Any, result: StartsResult, index: int, lengths: Sequence[float]) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Rectangle

    o, about, goal = result.outcomes[index], result.statistics[index], result.goal
    color = _POOR if result.family_of(index) is None else _DARK
    axes.set_xticks([])
    axes.set_yticks([])
    if o.labels.ndim == 2:
        a, b = lengths
        axes.imshow(
            np.tile(o.labels.T, (2, 2)),
            origin="lower",
            extent=(0, 2 * a, 0, 2 * b),
            interpolation="nearest",
            cmap=ListedColormap([_LIGHT, color]),
            vmin=0,
            vmax=1,
        )
        axes.add_patch(Rectangle((0, 0), a, b, fill=False, edgecolor="#b03030", linewidth=1.4))
    else:
        from fetopo.plot import render_volume

        axes.imshow(render_volume(o.labels, lengths, color=color))
    what = "from the target" if goal.kind == "target" else ""
    value = f"{shown_value(o, goal)} {what}".strip()
    certain = shown_interval(o, goal)
    lines = [value] if certain == "–" else [value, f"for certain {certain}"]
    if o.bound_fraction is not None:
        lines.append(f"{100 * o.bound_fraction:.1f} % of the bound")
    parts = f"parts {about.clusters[0]} + {about.clusters[1]}"
    lines.append(f"{parts}, ΔS₂ {100 * result.two_point[result.order[0], index]:.1f} %")
    axes.set_title(f"{family_name(result, index)} {o.number}: {_two_lines(o.start)}", fontsize=8.5)
    axes.set_xlabel("\n".join(lines), fontsize=8.5)


def _two_lines(name: str) -> str:
    """A long name broken after its first comma."""
    head, comma, rest = name.partition(", ")
    return f"{head},\n{rest}" if comma and len(name) > 24 else name


def _matrix(axes: Any, result: StartsResult) -> None:
    order = result.order
    D: Any = result.overlap[np.ix_(order, order)]
    axes.imshow(D, cmap="viridis_r", vmin=0, vmax=1)
    names = [f"{family_name(result, i)} {result.outcomes[i].number}" for i in order]
    axes.set_xticks(range(len(order)), names, rotation=90, fontsize=8.5)
    axes.set_yticks(range(len(order)), names, fontsize=8.5)
    size = min(8.5, 110 / len(order))
    for i, row in enumerate(D):
        for j, value in enumerate(row):
            color = "white" if value > 0.5 else "black"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=size, color=color)
    axes.set_xlabel("family and number of the start")
    how = "0: the same, 1: as different as unrelated ones"
    axes.set_title(f"distance of each pair where they lie on each other best\n{how}", fontsize=9)
