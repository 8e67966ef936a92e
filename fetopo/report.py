"""Results as text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fetopo.design.cell import CellDesign, Goal

#: Violation of a constraint, relative to its bound, that is worth a word.
VIOLATED = 5e-3


def tensor_lines(D: npt.NDArray[np.float64], indent: str = "    ") -> list[str]:
    """A tensor, one row a line; what is round-off beside the largest entry shows as 0."""
    cut = 1e-9 * np.abs(D).max()
    return [indent + "  ".join(f"{0.0 if abs(v) < cut else v:12.6g}" for v in row) for row in D]


def design_report(design: CellDesign, goal: Goal, directory: Path | None = None) -> str:
    """A finished design in a few lines."""
    result, goal = design.result, design.goal
    ending = "converged" if result.converged else "stopped at the iteration limit, not converged"
    structure = design.structure
    meshes = {"fitted": "a mesh fitted to it", "voxels": "its voxels", "tagged": "the design's mesh"}
    lines = [
        f"{ending} after {len(result.history)} iterations, grey level {100 * result.grey_level:.2f} %",
        f"crisp structure, solved again on {meshes[structure.kind]}:",
        f"volume fraction {design.volume_fraction:.4f}, effective tensor",
        *tensor_lines(design.verified_tensor),
    ]
    lines += _verdict(design, goal)
    violated = {name: v for name, v in result.constraints.items() if v > VIOLATED}
    if violated:
        shown = ", ".join(f"{name} by {100 * v:.1f} %" for name, v in violated.items())
        lines.append(f"constraints that the grey design violates: {shown}")
    for name, shape in (("poor", structure.poor), ("good", structure.good)):
        if shape is not None:
            through = "".join(axis for axis, there in zip("xyz", shape.percolates, strict=False) if there)
            lines.append(
                f"{name} material: {shape.parts} part{'s' if shape.parts != 1 else ''}, "
                f"{f'percolates along {through}' if through else 'does not percolate'}, "
                f"smallest feature {shape.smallest_feature:.3g}"
            )
    if design.findings:
        lines.append("not as it should be:")
        lines += [f"    {f.kind}: {f.message}\n        → {f.advice}" for f in design.findings]
    if directory is not None:
        fields = "design.vti" if design.discretization == "voxel" else "design.xdmf"
        lines.append(
            f"written to {directory}: result.json, history.csv, design.tif, {fields}, "
            "structure.msh, structure.xdmf, pictures"
        )
    return "\n".join(lines)


def _verdict(design: CellDesign, goal: Goal) -> list[str]:
    """What the crisp structure has of what was asked for."""
    if goal.kind == "function":
        return [f"value of the function to minimize {design.verified:.6g}"]
    if goal.kind == "target":
        lines = [f"relative distance to the target {100 * design.verified:.2f} %"]
        return [*lines, *_as_asked(design, goal)]
    where = "in every direction" if goal.kind == "isotropic" else "along " + str(list(goal.direction or ()))
    which = "Hashin–Shtrikman upper bound" if goal.kind == "isotropic" else "arithmetic mean"
    if goal.several:
        lines = [f"conductivities {where}"]
        for name in goal.transports:
            t = design.transports[name]
            share = 100 * t.verified / t.bound if t.bound else 0.0
            lines.append(f"    {name}: {t.verified:.6g}, {share:.2f} % of the {which}, {t.bound:.6g}")
        together = "smallest share" if goal.combine == "smaller" else "harmonic mean of the shares"
        weighted = ", by its weight" if goal.weights else ""
        lines.append(
            f"{together}{weighted} {100 * design.verified:.2f} %; no structure has more than "
            f"{100 * (design.crisp_bound or 0):.2f} %"
        )
    else:
        lines = [
            f"conductivity {where} {design.verified:.6g}: "
            f"{100 * (design.bound_fraction or 0):.2f} % of the {which}, {design.crisp_bound:.6g}"
        ]
        others = {name: t for name, t in design.transports.items() if name not in goal.transports}
        for name, t in others.items():
            lines += [f"transport {name}, effective tensor", *tensor_lines(t.verified_tensor)]
    if design.verified_at_least is not None:
        lines.append(f"guaranteed for the meshed structure: at least {design.verified_at_least:.6g}")
    return [*lines, *_as_asked(design, goal)]


def _as_asked(design: CellDesign, goal: Goal) -> list[str]:
    """Tortuosity factor or Bruggeman exponent, where that was the question."""
    f, k = design.volume_fraction, design.conductivity[1]
    if goal.asked is None:
        return []
    # Of all directions together as of the conductivity: the harmonic mean.
    D = goal.reached(design.verified_tensor) if goal.value is None else _harmonic(design.verified_tensor)
    wanted = "" if goal.value is None else f", asked for {goal.value:g}"
    if D <= 0:
        return [f"nothing is connected: {goal.asked} is infinite{wanted}"]
    if goal.asked == "tortuosity":
        return [f"tortuosity factor {f * k / D:.4f}{wanted}"]
    return [f"Bruggeman exponent {np.log(D / k) / np.log(f):.4f}{wanted}"]


def _harmonic(D: npt.NDArray[np.float64]) -> float:
    values = np.linalg.eigvalsh(D)
    return float(len(values) / np.sum(1 / values)) if values.min() > 0 else 0.0
