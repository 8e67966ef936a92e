"""One page that shows a phase: slices of the image and the curves of its descriptors."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from fetopo.figure import length_unit, new_figure
from fetopo.microstructure._voxels import voxels_of
from fetopo.microstructure.descriptors.summary import Summary
from fetopo.microstructure.image import Image

# Other labels in greys, the phase looked at in a colour of its own.
PHASE = "#1f6f8b"
LIGHT, DARK = 0.92, 0.45


def save_page(
    path: str | os.PathLike[str],
    image: Image,
    phase: int | Iterable[int],
    found: Summary,
    title: str | None = None,
) -> None:
    """Draw slices through the middle of an image, and what was found of a phase.

    Args:
        path: Picture to write; the suffix tells the format (.png, .pdf, .svg).
        image: The image.
        phase: Label of the phase, or several.
        found: Its descriptors.
        title: Line above the page.

    Raises:
        ValueError: A suffix that Matplotlib does not write.
        ImportError: Matplotlib is not installed.
    """
    wanted = [int(phase)] if isinstance(phase, int | np.integer) else [int(label) for label in phase]
    figure = new_figure(13.5, 11.0)
    if title:
        figure.suptitle(title)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    grid = figure.subplots(3, 3)
    if image.dim == 3:
        for axis, ax in enumerate(grid[0]):
            _slice(ax, image, wanted, axis)
    else:
        _slice(grid[0, 0], image, wanted, None)
        _near_origin(grid[0, 1], found)
        _numbers(grid[0, 2], found)
    _curves(grid[1], found)
    _pores(grid[2, 0], found)
    if found.anisotropy is None:
        grid[2, 1].set_axis_off()
    else:
        found.anisotropy.plot(grid[2, 1], color=PHASE)
        ratio = found.anisotropy.ratio
        grid[2, 1].set_title(f"anisotropy {ratio:.3f}" if np.isfinite(ratio) else "anisotropy")
        grid[2, 1].tick_params(axis="x", labelsize="small")
    if image.dim == 3:
        _numbers(grid[2, 2], found)
    else:
        _cluster_sizes(grid[2, 2], found)
    figure.savefig(path, dpi=120)


def _slice(ax: Any, image: Image, wanted: list[int], axis: int | None) -> None:
    """The image itself, or its plane in the middle of an axis; the last axis to the right."""
    shown, rest = image.labels, [0, 1]
    if axis is not None:
        shown = image.labels.take(image.shape[axis] // 2, axis)
        rest = [a for a in range(3) if a != axis]
    others = [label for label in image.phases if label not in wanted]
    greys = np.linspace(LIGHT, DARK, len(others)) if len(others) > 1 else np.array([LIGHT])
    picture = np.empty((*shown.shape, 3))
    for label, grey in zip(others, greys, strict=False):
        picture[shown == label] = grey
    picture[voxels_of(shown, wanted)] = [int(PHASE[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    sides = [image.shape[a] * image.voxel_size[a] for a in rest]
    unit, scale = length_unit(max(sides))
    extent = (0.0, sides[1] / scale, sides[0] / scale, 0.0)
    ax.imshow(picture, extent=extent, interpolation="nearest")
    ax.set_xlabel(f"axis {rest[1]}{unit}")
    ax.set_ylabel(f"axis {rest[0]}{unit}")
    ax.set_title("image" if axis is None else f"plane in the middle of axis {axis}")


def _curves(row: Any, found: Summary) -> None:
    """Correlation, lineal path and chord lengths."""
    found.two_point_correlation.plot(row[0], color=PHASE)
    row[0].set_title("two-point correlation")
    if found.two_point_cluster is not None:
        found.two_point_cluster.plot(row[0], color="#c98b3c", linestyle="--", label="cluster function C₂")
        row[0].set_ylabel("S₂, C₂ (-), φ² dotted")
        row[0].legend()
    for axis, path in enumerate(found.lineal_path):
        path.plot(row[1], label=f"axis {axis}")
    last = max(float(path.r[np.flatnonzero(path.value > 1e-3).max(initial=0)]) for path in found.lineal_path)
    if last > 0:
        # The curves were drawn in the unit of the last axis: find it again for the limit.
        row[1].set_xlim(0, last / length_unit(float(found.lineal_path[-1].r[-1]))[1])
    row[1].set_title("lineal path")
    row[1].legend()
    for axis, chords in enumerate(found.chord_lengths):
        if chords.count.sum():
            chords.plot(row[2], label=f"axis {axis}")
    row[2].set_title("chord lengths")
    if row[2].lines:
        row[2].legend()
        row[2].set_xlim(0, _far(found) / length_unit(_longest(found))[1])
    else:
        row[2].set_axis_off()


def _longest(found: Summary) -> float:
    """Longest chord of the last axis [m], whose unit is that of the axes."""
    chords = found.chord_lengths[-1]
    return float(chords.length[int(np.flatnonzero(chords.count).max(initial=0))])


def _far(found: Summary) -> float:
    """Length that 99.5 % of the chords of every axis do not exceed [m]."""
    return max(c.quantile(0.995) for c in found.chord_lengths if c.count.sum())


def _near_origin(ax: Any, found: Summary) -> None:
    if found.surface is None:
        ax.set_axis_off()
    else:
        found.surface.plot(ax, color=PHASE)


def _pores(ax: Any, found: Summary) -> None:
    """Pore sizes, or where there are none S₂ near the origin."""
    if found.pore_sizes is None:
        _near_origin(ax, found)
    else:
        found.pore_sizes.plot(ax, color=PHASE)
        ax.set_title("local thickness")


def _cluster_sizes(ax: Any, found: Summary) -> None:
    found.clusters.plot(ax, color=PHASE)
    ax.set_title(f"{found.clusters.count} clusters")


def _numbers(ax: Any, found: Summary) -> None:
    """The numbers, as text."""
    ax.set_axis_off()
    text = ax.text(0.0, 1.0, "\n".join(lines(found)), transform=ax.transAxes, va="top")
    text.set(family="monospace", fontsize=8.2, linespacing=1.5, in_layout=False)


def lines(found: Summary) -> list[str]:
    """What was found, a line each, for a terminal or a page."""
    parts, chords = found.clusters, found.chord_lengths
    text = [
        ("volume fraction", f"{found.fraction:.4f}"),
        *_phases(found),
        ("percolating fraction", "  ".join(f"{v:.4f}" for v in parts.percolating_fraction)),
        ("clusters", f"{parts.count}, largest share {parts.largest_fraction:.4f}"),
        ("mean chord length", "  ".join(_length(c.mean) for c in chords)),
        ("median chord length", "  ".join(_length(c.quantile(0.5)) for c in chords)),
        ("specific surface", f"{found.specific_surface:.4g} 1/m"),
    ]
    if found.surface is not None:
        text.append(("  from the slope of S₂", f"{found.surface.value:.4g} 1/m"))
    if found.anisotropy is not None:
        lengths, _ = found.anisotropy.principal
        text.append(("principal chords", "  ".join(_length(float(v)) for v in lengths)))
        text.append(
            ("integral lengths", "  ".join(_length(float(v)) for v in found.anisotropy.integral_length))
        )
    if found.pore_sizes is not None:
        sizes = found.pore_sizes
        text.append(("local thickness", f"{_length(sizes.mean)} ± {_length(sizes.deviation)}"))
        quantiles = "  ".join(_length(sizes.quantile(q)) for q in (0.1, 0.5, 0.9))
        text.append(("  d10, d50, d90", quantiles))
    return [f"{name:<24}{value}" for name, value in text]


def _phases(found: Summary) -> list[tuple[str, str]]:
    """Volume fractions of all labels, three a line; the first dozen where there are many."""
    every = [f"{label}: {fraction:.4f}" for label, fraction in found.volume_fractions.items()]
    shown = every[:12] + ([f"… of {len(every)} labels"] if len(every) > 12 else [])
    rows = [", ".join(shown[k : k + 3]) for k in range(0, len(shown), 3)]
    return [("" if k else "all phases", row) for k, row in enumerate(rows)]


def _length(metres: float) -> str:
    """A length with three or four digits, or a dash."""
    if not np.isfinite(metres):
        return "–"
    unit, scale = length_unit(metres)
    return f"{metres / scale:.4g} {unit.strip(' ()') or 'm'}"
