"""What a front leaves behind beside the folders of its points: a table, numbers, a picture, a report."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from fetopo._mpi import get_logger, on_every_rank
from fetopo.design.pareto import Point
from fetopo.io import write_json
from fetopo.microstructure.image import read
from fetopo.pareto_run import CaseFront, folder_of

#: Violation of a constraint, relative to its bound, that is worth a word.
_VIOLATED = 5e-3


def rows(found: CaseFront) -> list[dict[str, Any]]:
    """One row per point, as front.csv has them."""
    return [_row(found, point) for point in found.front.points]


def _row(found: CaseFront, point: Point) -> dict[str, Any]:
    asked, solved = point.request, point.solved
    about = solved.about if solved is not None else {}
    status = "failed" if solved is None else "dominated" if point.dominated else "front"
    row: dict[str, Any] = {"point": asked.number, "status": status}
    for i, name in enumerate(found.names):
        row[name] = None if solved is None else solved.values[i]
        row[f"{name}_of_bound"] = about["of_bound"][i] if about else None
    row["share_of_limit"] = None if solved is None else found.share_of_limit(solved.values)
    for key in ("volume_fraction", "grey_level", "iterations", "converged", "violation"):
        row[key] = about.get(key)
    for i, name in enumerate(found.names):
        row[f"{name}_position"] = asked.position[i]
        row[f"{name}_wanted"] = asked.wanted[i] if asked.wanted and asked.maximize is None else None
        row[f"{name}_floor"] = asked.floors[i] if asked.floors else None
    row["parents"] = " ".join(map(str, asked.parents))
    row["start"] = asked.start
    row["message"] = point.message
    return row


def front_summary(found: CaseFront) -> dict[str, Any]:
    """The content of front.json."""
    front, k = found.front, len(found.names)
    return {
        "objectives": found.names,
        "method": found.method,
        "goal": found.goal.kind if found.goal.direction is None else {"along": found.goal.direction},
        "points": rows(found),
        "front": [p.request.number for p in front.best],
        "reference": front.reference,
        "hypervolume": front.hypervolume,
        "hypervolume_of_first": {
            n: front.first(n).hypervolume for n in range(k, len(front.points) + 1)
        },
        "bounds": [
            {"of": [found.names[i], found.names[j]], "curve": curve} for (i, j), curve in found.bounds.items()
        ],
    }  # fmt: skip


def write_front(
    comm: Any, directory: Path, found: CaseFront, *, title: str = "", picture: bool = True
) -> None:
    """front.csv, front.png and, last, front.json. Collective.

    Args:
        comm: all ranks.
        directory: that of the points.
        found: the front.
        title: above the picture.
        picture: whether to draw it.
    """
    with on_every_rank(comm):
        if comm.rank == 0:
            table = rows(found)
            with (directory / "front.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fieldnames=list(table[0]))
                writer.writeheader()
                writer.writerows(table)
            if picture and found.front.found:
                _draw(directory, found, title)
            write_json(directory / "front.json", front_summary(found))


def _draw(directory: Path, found: CaseFront, title: str) -> None:
    from fetopo.plot_front import save_front

    try:
        save_front(directory / "front.png", [drawn(directory, found)], axis_names(found), title)
    except ImportError as error:
        get_logger(__name__).warning("no picture: %s", error)


def axis_names(found: CaseFront) -> list[str]:
    """What the axes of a picture say."""
    where = "" if found.goal.direction is None else " along " + str([float(v) for v in found.goal.direction])
    return [f"effective conductivity{where}: {name}" for name in found.names]


def drawn(directory: Path, found: CaseFront, label: str = "front, crisp structures") -> Any:
    """A front as :func:`fetopo.plot_front.save_front` draws it, with the structures in its folders."""
    from fetopo.plot_front import DrawnFront

    points = found.front.found
    return DrawnFront(
        found.front.values,
        np.array([p.dominated for p in points]),
        [read(folder_of(directory, p.request.number) / "design.tif").labels for p in points],
        found.bounds,
        [p.request.number for p in points],
        label,
    )


def front_report(found: CaseFront, directory: Path | None = None) -> str:
    """A front as a table."""
    width = max(10, *(len(name) for name in found.names))
    shares = len(found.names) == 2
    head = ["point", *(f"{name:>{width}}" for name in found.names)]
    head += ["of the limit"] * shares + ["fraction", "grey", "iterations", "status"]
    lines = ["  ".join(head)]
    for row in rows(found):
        if row["status"] == "failed":
            lines.append(f"{row['point']:5d}  failed: {row['message']}")
            continue
        cells = [f"{row['point']:5d}", *(f"{row[name]:{width}.5g}" for name in found.names)]
        cells += [f"{100 * row['share_of_limit']:10.2f} %"] if shares else []
        cells += [
            f"{row['volume_fraction']:8.4f}",
            f"{100 * row['grey_level']:3.1f}%",
            f"{row['iterations']:10d}",
        ]
        missed = (
            f", misses a constraint by {100 * row['violation']:.1f} %" if row["violation"] > _VIOLATED else ""
        )
        lines.append("  ".join([*cells, row["status"] + missed]))
    front = found.front
    counts = f"{len(front.best)} of {len(front.points)} points on the front"
    lines.append(f"{counts}, hypervolume {front.hypervolume:.6g} from the origin")
    if shares and front.found:
        least = min(found.share_of_limit(p.solved.values) or 0.0 for p in front.best if p.solved)
        lines.append(f"every one of them within {100 * (1 - least):.2f} % of what theory allows at most")
    if directory is not None:
        lines.append(f"written to {directory}: front.json, front.csv, front.png, a folder for each point")
    return "\n".join(lines)
