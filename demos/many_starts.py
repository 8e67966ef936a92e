# # One conductivity, many structures
#
# The effective tensor is three numbers in two dimensions, a structure is thousands: the inverse problem has
# no unique answer. Here one isotropic target, well inside the bounds of Hashin and Shtrikman, is designed
# from several starts (inclusions, a random field, overlapping discs, a reconstruction of a medium with a
# given S₂, …). Each design is cut to a crisp structure, meshed along its interface and solved again; that
# tensor has to have the target.
#
# Structures that lie on each other once translated, turned or reflected are the same, and so are those that
# S₂, lineal path and topology do not tell apart. What is left are different cells with one property, among
# which a user may choose by what the target does not say: the width of the necks, how many parts there are.
#
# Each rank designs from its own starts.
#
#     python3 demos/many_starts.py
#     mpirun -n 2 python3 demos/many_starts.py --starts 12

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo.case import Case
from fetopo.case_starts import case_starts, run_starts
from fetopo.design.uniqueness import Sameness
from fetopo.plot_starts import save_starts
from fetopo.report_starts import starts_report
from fetopo.transport.bounds import hashin_shtrikman

comm = MPI.COMM_WORLD

parser = argparse.ArgumentParser(description="Different structures with one effective conductivity.")
parser.add_argument("--cells", type=int, default=64, help="voxels along an edge (default 64)")
parser.add_argument("--starts", type=int, default=8, help="how many first designs (default 8)")
parser.add_argument("--distinct", type=int, default=4, help="structures that must be found (default 4)")
parser.add_argument("--conductivity", type=float, default=0.25, help="the target (default 0.25)")
parser.add_argument("--within", type=float, default=0.01, help="distance that counts as met (default 0.01)")
parser.add_argument("--resume", action="store_true", help="go on where an earlier run was stopped")
parser.add_argument("--output", type=Path, default=Path("results") / "many_starts")
arguments = parser.parse_args()


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## The target
#
# What a case file would say, see docs/cases.md.

k, f, D = (0.01, 1.0), 0.5, arguments.conductivity
low, high = hashin_shtrikman((1 - f, f), k, 2)
say(f"target {D:g} times the identity; isotropic structures have {low:.4f} to {high:.4f}")
case = Case.model_validate(
    {
        "title": f"conductivity {D:g}",
        "discretization": "voxel",
        "cell": {"shape": [arguments.cells] * 2},
        "material": {"conductivity": list(k), "volume_fraction": f},
        "objective": {"target": [[D, 0.0], [0.0, D]]},
        "filter": {"radius": max(0.08, 3 / arguments.cells)},
        "verify": {"refine": 1},
    }
)

# ## The designs
#
# One folder each, with what `fetopo design` writes.

starts = case_starts(case, arguments.starts)
same = Sameness(tolerance=arguments.within)
result = run_starts(case, comm, starts, arguments.output, resume=arguments.resume, pictures=False, same=same)
if comm.rank == 0:
    save_starts(arguments.output / "starts.png", result, case.lengths, title=case.title)
say(starts_report(result, arguments.output))

# ## What must hold

first = [result.outcomes[family[0]] for family in result.families]
assert low < D < high, "the target does not lie inside the bounds"
assert len(first) >= arguments.distinct, f"{len(first)} distinct structures, not {arguments.distinct}"
for o in first:
    distance = np.linalg.norm(o.tensor - D * np.eye(2)) / np.linalg.norm(D * np.eye(2))
    assert distance <= arguments.within, f"start {o.number} is {100 * distance:.2f} % from the target"
    assert o.interval[1] is not None, f"start {o.number} has no guaranteed interval"
    assert abs(o.volume_fraction - f) <= 0.02 * f, f"start {o.number} has another volume fraction"
for i, one in enumerate(result.families):
    for other in result.families[:i]:
        assert result.overlap[one[0], other[0]] > result.same.overlap, "two families are one structure"
