"""What designs from several starts came to, as text, JSON, CSV and a picture."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fetopo.design.goal import Goal
from fetopo.design.uniqueness import Outcome, StartsResult
from fetopo.io import write_json

_log = logging.getLogger(__name__)

#: Longest name of a start that the table shows whole.
_WIDTH = 46


def family_name(result: StartsResult, index: int) -> str:
    """A, B, …, Z, AA, … for the families, – for a structure without the property."""
    k = result.family_of(index)
    if k is None:
        return "–"
    name = ""
    while k >= 0:
        name, k = chr(ord("A") + k % 26) + name, k // 26 - 1
    return name


def outcome_line(outcome: Outcome, goal: Goal) -> str:
    """What one start led to, in a few words."""
    value, quantity = shown_value(outcome, goal), _quantity(goal)
    words = [f"{value} {quantity}" if value.endswith("%") else f"{quantity} {value}"]
    if outcome.bound_fraction is not None and not goal.several:
        words.append(f"{100 * outcome.bound_fraction:.2f} % of the bound")
    if not outcome.converged:
        words.append("not converged")
    return ", ".join(words)


def shown_value(outcome: Outcome, goal: Goal) -> str:
    """The goal's number."""
    if goal.kind == "target" or goal.several:
        return f"{100 * outcome.value:.2f} %"
    return f"{outcome.value:.5g}"


def shown_interval(outcome: Outcome, goal: Goal) -> str:
    """What is certain of the goal's number."""
    low, high = outcome.interval
    scale, unit = (100.0, " %") if goal.kind == "target" or goal.several else (1.0, "")
    places = ".2f" if unit else ".5g"
    if low is None and high is None:
        return "–"
    if goal.kind == "target" and high is not None:
        return f"≤ {scale * high:{places}}{unit}"
    if high is None or low is None:
        return (
            f"≥ {scale * low:{places}}{unit}"
            if low is not None
            else f"≤ {scale * (high or 0):{places}}{unit}"
        )
    return f"{scale * low:{places}} … {scale * high:{places}}{unit}"


def starts_headline(result: StartsResult) -> str:
    """How many starts reach the same property with how many structures."""
    n, t = len(result.outcomes) + len(result.failed), 100 * result.same.tolerance
    where = f"within {t:g} % of the {'target' if result.goal.kind == 'target' else 'best'}"
    many = "structure" if result.distinct == 1 else "structures"
    return f"{n} starts: {len(result.reaching)} {where}, {result.distinct} distinct {many}"


def starts_report(result: StartsResult, directory: Path | None = None) -> str:
    """A finished comparison in a table."""
    goal = result.goal
    bounded = any(o.bound_fraction is not None for o in result.outcomes)
    head = ["start", "family", _quantity(goal), "guaranteed"]
    head += ["of bound"] if bounded else []
    head += ["tr D/d", "guaranteed", "f", "parts", "through", "feature", "ΔS₂", "ΔL"]
    rows = []
    for index in result.order:
        o, about = result.outcomes[index], result.statistics[index]
        row = [f"{o.number:2d} {_short(o.start)}", family_name(result, index)]
        row += [shown_value(o, goal) + ("" if o.converged else "*"), shown_interval(o, goal)]
        if bounded:
            row.append("–" if o.bound_fraction is None else f"{100 * o.bound_fraction:.2f} %")
        low, high = o.conductivity_interval
        certain = "–" if low is None or high is None else f"{low:.4g} … {high:.4g}"
        first = result.order[0]
        row += [
            f"{o.conductivity:.4g}",
            certain,
            f"{o.volume_fraction:.4f}",
            f"{about.clusters[0]} + {about.clusters[1]}",
            " + ".join(_axes(through) for through in about.percolates),
            _feature(o),
            f"{100 * result.two_point[first, index]:.1f} %",
            f"{100 * result.lineal_path[first, index]:.1f} %",
        ]
        rows.append(row)
    lines = [starts_headline(result), "", *_table(head, rows)]
    if not all(o.converged for o in result.outcomes):
        lines.append("* not converged")
    lines += [
        "parts, through (axes along which it percolates): better + poorer material; feature: the smallest of",
        f"both; ΔS₂, ΔL: difference of S₂ and lineal path from those of start {_number(result, 0)}",
    ]
    if len(result.outcomes) > 1:
        lines += ["", "distance of each pair where they lie on each other best, 0 for the same structure"]
        names = [str(result.outcomes[i].number) for i in result.order]
        D: Any = result.overlap[np.ix_(result.order, result.order)]
        lines += _table(
            ["", *names], [[n, *(f"{v:.2f}" for v in row)] for n, row in zip(names, D, strict=True)]
        )
    lines += [f"start {number} ({name}) failed: {message}" for number, name, message in result.failed]
    if directory is not None:
        lines.append(
            f"written to {directory}: starts.json, starts.csv, starts.png, and a folder for each start"
        )
    return "\n".join(lines)


def starts_values(result: StartsResult) -> dict[str, Any]:
    """The content of starts.json."""
    numbers = [o.number for o in result.outcomes]
    return {
        "distinct": result.distinct,
        "reaching": [numbers[i] for i in result.reaching],
        "families": [[numbers[i] for i in family] for family in result.families],
        "same": result.same,
        "goal": result.goal.kind,
        "target": result.goal.target,
        "starts": [_values(result, i) for i in range(len(numbers))],
        "failed": [
            {"number": number, "start": name, "message": message} for number, name, message in result.failed
        ],
        "numbers": numbers,
        "overlap_distance": result.overlap,
        "two_point_difference": result.two_point,
        "lineal_path_difference": result.lineal_path,
    }


def _values(result: StartsResult, index: int) -> dict[str, Any]:
    o, about = result.outcomes[index], result.statistics[index]
    return {
        "number": o.number,
        "start": o.start,
        "folder": f"start-{o.number:02d}",
        "family": None if result.family_of(index) is None else family_name(result, index),
        "value": o.value,
        "interval": o.interval,
        "bound_fraction": o.bound_fraction,
        "effective_tensor": o.tensor,
        "conductivity": o.conductivity,
        "conductivity_interval": o.conductivity_interval,
        "volume_fraction": o.volume_fraction,
        "converged": o.converged,
        "iterations": o.iterations,
        "grey_level": o.grey_level,
        "interface": o.interface,
        "shapes": dict(o.shapes),
        "two_point_correlation": about.two_point.to_dict(),
        "lineal_path": {
            "r": about.lineal_path[0].r,
            "good": about.lineal_path[0].value,
            "poor": about.lineal_path[1].value,
        },
    }


def write_starts(
    directory: Path,
    result: StartsResult,
    lengths: Sequence[float],
    *,
    title: str = "",
    pictures: bool = True,
) -> None:
    """starts.csv, starts.png and, last, starts.json. On one rank.

    Args:
        directory: that is there.
        result: what to write.
        lengths: edges of the cell.
        title: above the picture.
        pictures: whether to draw it.
    """
    _write_csv(directory / "starts.csv", result)
    if pictures:
        from fetopo.plot_starts import save_starts

        try:
            save_starts(directory / "starts.png", result, lengths, title=title)
        except ImportError as error:
            _log.warning("no picture: %s", error)
    write_json(directory / "starts.json", starts_values(result))


def _write_csv(path: Path, result: StartsResult) -> None:
    """One line per start, in the order of their numbers."""
    first, rows = result.order[0], []
    for index, o in enumerate(result.outcomes):
        about, (low, high), (least, most) = result.statistics[index], o.interval, o.conductivity_interval
        row: dict[str, Any] = {
            "number": o.number,
            "start": o.start,
            "family": family_name(result, index),
            "value": o.value,
            "guaranteed_from": low,
            "guaranteed_to": high,
            "bound_fraction": o.bound_fraction,
            "conductivity": o.conductivity,
            "conductivity_from": least,
            "conductivity_to": most,
            "volume_fraction": o.volume_fraction,
            "converged": o.converged,
            "iterations": o.iterations,
            "grey_level": o.grey_level,
            "interface": o.interface,
        }
        for k, phase in enumerate(("good", "poor")):
            row[f"{phase}_parts"] = about.clusters[k]
            row[f"{phase}_percolates"] = _axes(about.percolates[k])
            row[f"{phase}_smallest_feature"] = o.shapes.get(phase, {}).get("smallest_feature")
        row["overlap_distance_to_best"] = result.overlap[first, index]
        row["two_point_difference_to_best"] = result.two_point[first, index]
        row["lineal_path_difference_to_best"] = result.lineal_path[first, index]
        rows.append(row)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _quantity(goal: Goal) -> str:
    if goal.kind == "target":
        return "off target"
    if goal.kind == "function":
        return "value"
    return "of bounds" if goal.several else "conductivity"


def _short(name: str) -> str:
    return name if len(name) <= _WIDTH else "…" + name[1 - _WIDTH :]


def _axes(through: Sequence[bool]) -> str:
    return "".join(axis for axis, there in zip("xyz", through, strict=False) if there) or "–"


def _feature(o: Outcome) -> str:
    sizes = [shape["smallest_feature"] for shape in o.shapes.values()]
    return f"{min(sizes):.3g}" if sizes else "–"


def _number(result: StartsResult, place: int) -> int:
    return result.outcomes[result.order[place]].number


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they need to be, the first to the left, the others to the right."""
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    return [line(row) for row in (head, *rows)]
