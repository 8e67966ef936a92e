"""One picture of a front: its points, the bounds of theory, and what the structures look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo._mpi import get_logger
from fetopo.figure import new_figure, plain_ticks

Array = npt.NDArray[np.float64]

#: Structures shown around two objectives, and below three.
MOST_AROUND, MOST_BELOW = 10, 9

#: Ratio of largest to smallest beyond which both axes are logarithmic.
_DECADES = 8.0

#: Distance in pixels below which two points have one label.
_APART = 12.0

#: Share of a plane, from its left and lower edge, within which labels stand above and to the right of points.
_EDGE = 0.1

_COLORS = ("#1f4e79", "#b5651d", "#4a7c3a", "#7a3b69")
_LIGHT = "#f2efe6"


@dataclass(frozen=True)
class DrawnFront:
    """What of a front is drawn.

    Attributes:
        values: objectives of its points, shape (n, k).
        dominated: mask, shape (n,).
        structures: labels of each point, 1 where the better material is; None for one without.
        bounds: curves in the planes of two objectives, by the numbers of these.
        numbers: of the points, shown beside them.
        label: for the legend.
    """

    values: Array
    dominated: npt.NDArray[np.bool_]
    structures: Sequence[npt.NDArray[Any] | None] = ()
    bounds: Mapping[tuple[int, int], Array] = field(default_factory=dict)
    numbers: Sequence[int] = ()
    label: str = "front"


def save_front(path: str | Path, fronts: Sequence[DrawnFront], names: Sequence[str], title: str = "") -> None:
    """Draw fronts of two objectives with structures around them, or of three in three planes.

    Args:
        path: file to write.
        fronts: of the same objectives, one or a few.
        names: of the objectives, with their units.
        title: above the picture.
    """
    draw = _draw_two if len(names) == 2 else _draw_three
    figure = draw(fronts, names)
    figure.suptitle(title, fontsize=12)
    figure.text(
        0.99, 0.008, "f: volume fraction of the coloured material", ha="right", fontsize=8, color="#555555"
    )
    figure.savefig(path, dpi=130)


def thumbnail(labels: npt.NDArray[Any], color: str) -> npt.NDArray[Any]:
    """A structure as a small RGB picture: 2×2 cells in 2D, the better material as a surface in 3D."""
    if labels.ndim == 3:
        from fetopo.plot import render_volume

        try:
            return render_volume(labels, labels.shape, size=(330, 310), color=color)
        except ImportError as error:
            get_logger(__name__).warning("planes of structures instead of surfaces: %s", error)
            labels = labels[:, :, labels.shape[2] // 2]
    from matplotlib.colors import to_rgb

    colors = np.array([to_rgb(_LIGHT), to_rgb(color)])
    return np.asarray(colors[np.tile(labels, (2, 2)).T[::-1].astype(int)])


def _new(width: float, height: float) -> Any:
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    return figure


def _draw_two(fronts: Sequence[DrawnFront], names: Sequence[str]) -> Any:
    """Axes with room above and to the right, where the structures stand in the order of their points."""
    figure = _new(9.4, 8.2)
    axes = figure.add_axes((0.085, 0.08, 0.70, 0.66))
    _draw_plane(axes, fronts, (0, 1), names)
    figure.canvas.draw()
    shown = _chosen(fronts, MOST_AROUND, axes)
    above = int(np.ceil(0.6 * len(shown)))
    size = 0.105
    # Left to right above, then top to bottom beside: the order in which the points follow, no lines cross.
    places: list[tuple[float, float]] = [(x, 0.79) for x in _spread(0.085, 0.785, above, size)]
    places += [(0.825, y) for y in _spread(0.08, 0.74, len(shown) - above, size * 9.4 / 8.2)[::-1]]
    for (color, values, number, labels), place in zip(shown, places, strict=True):
        x, y = place
        height = size * 9.4 / 8.2
        small = figure.add_axes((x, y, size, height))
        _show_structure(small, labels, color, number)
        beside = x > 0.8
        end = (x, y + height / 2) if beside else (x + size / 2, y)
        axes.annotate(
            "", xy=(values[0], values[1]), xytext=end, textcoords="figure fraction", zorder=1,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "alpha": 0.55, "shrinkA": 0},
        )  # fmt: skip
    return figure


def _draw_three(fronts: Sequence[DrawnFront], names: Sequence[str]) -> Any:
    """The three planes of two objectives, and the structures in a row below."""
    figure = _new(13.0, 7.0)
    for column, pair in enumerate(combinations(range(3), 2)):
        axes = figure.add_axes((0.06 + 0.325 * column, 0.40, 0.255, 0.50))
        _draw_plane(axes, fronts, pair, names, legend=column == 2)
    shown = _chosen(fronts, MOST_BELOW, None)
    size = 0.095
    for (color, _, number, labels), x in zip(shown, _spread(0.05, 0.97, len(shown), size), strict=True):
        _show_structure(figure.add_axes((x, 0.06, size, size * 13 / 7)), labels, color, number)
    return figure


def _draw_plane(
    axes: Any, fronts: Sequence[DrawnFront], pair: tuple[int, int], names: Sequence[str], legend: bool = True
) -> None:
    """Points and bounds in the plane of two objectives."""
    a, b = pair
    for i, front in enumerate(fronts):
        color, z = _COLORS[i % len(_COLORS)], front.values[:, [a, b]]
        curve = front.bounds.get(pair)
        if curve is not None:
            # No structure has more of one than alone: straight down and to the left.
            corner = [[0.0, curve[0, 1]], *curve, [curve[-1, 0], 0.0]]
            label = "bounds" if len(fronts) == 1 else f"bounds, {front.label}"
            axes.plot(*np.transpose(corner), color=color, linestyle="--", linewidth=1.1, label=label)
        gone, kept = z[front.dominated], z[~front.dominated]
        if len(gone):
            axes.plot(*gone.T, "o", color="#aaaaaa", markersize=5, label="dominated" if i == 0 else None)
        axes.plot(*kept.T, "o", color=color, markersize=6.5, label=front.label, zorder=3, clip_on=False)
    _scale(axes, np.concatenate([f.values[:, [a, b]] for f in fronts]), fronts, pair)
    if len(fronts) == 1:
        _number_points(axes, fronts[0].values[:, [a, b]], fronts[0].numbers, fronts[0].dominated)
    axes.set_xlabel(names[a])
    axes.set_ylabel(names[b])
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    if legend:
        axes.legend(loc="lower left", fontsize=9)


def _number_points(axes: Any, z: Array, numbers: Sequence[int], dominated: npt.NDArray[np.bool_]) -> None:
    """Numbers beside points; those that (nearly) coincide in this plane share one label."""
    seen = axes.transData.transform(z)
    groups: list[list[int]] = []
    for n in range(min(len(z), len(numbers))):
        for group in groups:
            if np.hypot(*(seen[n] - seen[group[0]])) < _APART:
                group.append(n)
                break
        else:
            groups.append([n])
    for group in groups:
        # Below and to the left, where no better points are; near these edges stand the numbers of the axes.
        near_edge = (axes.transAxes.inverted().transform(seen[group[0]]) < _EDGE).any()
        axes.annotate(
            ", ".join(str(numbers[n]) for n in group), z[group[0]], (4, 3) if near_edge else (-5, -5),
            textcoords="offset points", fontsize=8, ha="left" if near_edge else "right",
            va="bottom" if near_edge else "top", color="#888888" if dominated[group].all() else "black",
        )  # fmt: skip


def _scale(axes: Any, z: Array, fronts: Sequence[DrawnFront], pair: tuple[int, int]) -> None:
    """Limits that show all points and bounds, logarithmic where they span much."""
    curves = [f.bounds[pair] for f in fronts if pair in f.bounds]
    everything = np.concatenate([z, *curves])
    low, high = everything.min(axis=0), everything.max(axis=0)
    if (low > 0).all() and (high / low > _DECADES).all():
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(low[0] / 1.25, high[0] * 1.25)
        axes.set_ylim(low[1] / 1.25, high[1] * 1.25)
        plain_ticks(axes.xaxis)
        plain_ticks(axes.yaxis)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(lambda v, position: f"{v:g}" if f"{v:e}"[0] in "25" else "")
        axes.tick_params(which="both", labelsize=9)
    else:
        axes.set_xlim(0, high[0] * 1.06)
        axes.set_ylim(0, high[1] * 1.06)


def _chosen(fronts: Sequence[DrawnFront], most: int, axes: Any) -> list[tuple[str, Array, int | None, Any]]:
    """Points whose structures are shown, in the order of their direction from the lower left corner."""
    found = []
    for i, front in enumerate(fronts):
        for n in range(len(front.values)):
            values, gone = front.values[n], front.dominated[n]
            labels = front.structures[n] if n < len(front.structures) else None
            if gone or labels is None:
                continue
            key = [-float(v) for v in values]
            if axes is not None:
                x, y = axes.transAxes.inverted().transform(axes.transData.transform(values[:2]))
                # Seen from a little further off, of two points on an axis the outer one comes last.
                key = [-float(np.arctan2(max(y, 0.0) + 0.3, max(x, 0.0) + 0.3))]
            number = front.numbers[n] if len(fronts) == 1 and n < len(front.numbers) else None
            found.append((key, (_COLORS[i % len(_COLORS)], values, number, labels)))
    found.sort(key=lambda item: item[0])
    picked = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int))
    return [found[i][1] for i in picked]


def _show_structure(axes: Any, labels: Any, color: str, number: int | None) -> None:
    axes.imshow(thumbnail(labels, color))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(color)
    text = f"f = {float(np.mean(labels)):.2f}"
    axes.set_title(text if number is None else f"{number}:  {text}", fontsize=9, pad=2)


def _spread(low: float, high: float, count: int, size: float) -> list[float]:
    """Where boxes of a size begin that fill a stretch evenly."""
    room = (high - low) / max(count, 1)
    return [low + room * i + 0.5 * (room - size) for i in range(count)]
