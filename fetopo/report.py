"""Results as text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fetopo.design.cell import CellDesign, Goal


def tensor_lines(D: npt.NDArray[np.float64], indent: str = "    ") -> list[str]:
    """A tensor, one row a line; what is round-off beside the largest entry shows as 0."""
    cut = 1e-9 * np.abs(D).max()
    return [indent + "  ".join(f"{0.0 if abs(v) < cut else v:12.6g}" for v in row) for row in D]


def design_report(design: CellDesign, goal: Goal, directory: Path | None = None) -> str:
    """A finished design in a few lines."""
    result = design.result
    ending = "converged" if result.converged else "stopped at the iteration limit, not converged"
    structure = design.structure
    meshes = {"fitted": "a mesh fitted to it", "voxels": "its voxels", "tagged": "the design's mesh"}
    lines = [
        f"{ending} after {len(result.history)} iterations, grey level {100 * result.grey_level:.2f} %",
        f"crisp structure, solved again on {meshes[structure.kind]}:",
        f"volume fraction {design.volume_fraction:.4f}, effective tensor",
        *tensor_lines(design.verified_tensor),
    ]
    if goal.kind == "target":
        lines.append(f"relative distance to the target {100 * design.verified:.2f} %")
    else:
        what = (
            "in every direction" if goal.kind == "isotropic" else "along " + str(list(goal.direction or ()))
        )
        which = "Hashin–Shtrikman upper bound" if goal.kind == "isotropic" else "arithmetic mean"
        lines.append(
            f"conductivity {what} {design.verified:.6g}: "
            f"{100 * (design.bound_fraction or 0):.2f} % of the {which}, {design.crisp_bound:.6g}"
        )
        if design.verified_at_least is not None:
            lines.append(f"guaranteed for the meshed structure: at least {design.verified_at_least:.6g}")
    for name, shape in (("poor", structure.poor), ("good", structure.good)):
        if shape is not None:
            through = "".join(axis for axis, there in zip("xyz", shape.percolates, strict=False) if there)
            lines.append(
                f"{name} material: {shape.parts} part{'s' if shape.parts != 1 else ''}, "
                f"{f'percolates along {through}' if through else 'does not percolate'}, "
                f"smallest feature {shape.smallest_feature:.3g}"
            )
    if directory is not None:
        fields = "design.vti" if design.discretization == "voxel" else "design.xdmf"
        lines.append(
            f"written to {directory}: result.json, history.csv, design.tif, {fields}, "
            "structure.msh, structure.xdmf, pictures"
        )
    return "\n".join(lines)
