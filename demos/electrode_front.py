# # The front of a battery electrode: ions against electrons at three porosities
#
# Ions move through the pores of an electrode and electrons through its solid. How much of one does a designer
# give up for more of the other? This demo finds the whole front at three porosities: the best structure for
# electrons alone, the best for ions alone, and structures between them, each designed from its neighbour and
# solved again as a crisp structure.
#
# Each conductivity alone is at most what Hashin and Shtrikman allow. Both together are limited more: what
# Bergman (1978, doi:10.1016/0370-1573(78)90009-1) says of one structure with two sets of conductivities gives
# a curve in the plane of the two, beyond which no structure lies. At equal volumes Schwarz' P surface is next
# to it (Torquato, Hyun and Donev 2002, doi:10.1103/PhysRevLett.89.266601). How near do designs come?
#
#     python3 demos/electrode_front.py
#     mpirun -n 2 python3 demos/electrode_front.py --cells 20 --points 9

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo.case import Case
from fetopo.front_io import drawn, front_report, write_front
from fetopo.pareto_run import run_front
from fetopo.transport.bounds import hashin_shtrikman

comm = MPI.COMM_WORLD

parser = argparse.ArgumentParser(description="Fronts of ionic against electronic conductivity.")
parser.add_argument("--cells", type=int, default=16, help="voxels along an edge (default 16)")
parser.add_argument("--points", type=int, default=5, help="points of each front (default 5)")
parser.add_argument("--porosities", default="0.35,0.5,0.65", help="of the pore (default 0.35,0.5,0.65)")
parser.add_argument("--resume", action="store_true", help="keep points that are complete")
parser.add_argument("--output", type=Path, default=Path("results") / "electrode_front")
arguments = parser.parse_args()


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## The case
#
# One case for each porosity, as a case file would say it: two materials, two transports in opposite order.
# The command line does the same: `fetopo pareto CASE.toml --output DIRECTORY`.


def case_of(porosity: float) -> Case:
    return Case.model_validate(
        {
            "discretization": "voxel",
            "cell": {"shape": [arguments.cells] * 3},
            "material": {"conductivity": [0.0, 1.0], "volume_fraction": 1 - porosity},
            "transport": {"ions": {"conductivity": [1.0, 0.0]}},
            "objective": {"maximize": "isotropic", "transports": ["main", "ions"]},
            "filter": {"radius": 0.2},
        }
    )


# ## The fronts
#
# The points of a front are shared out over the ranks.

porosities = [float(text) for text in arguments.porosities.split(",")]
fronts = {}
for porosity in porosities:
    folder = arguments.output / f"porosity_{porosity:g}"
    found = run_front(case_of(porosity), comm, folder, points=arguments.points, resume=arguments.resume)
    write_front(comm, folder, found, title=f"Porosity {porosity:g}", picture=False)
    fronts[porosity] = found
    say(f"\nporosity {porosity:g} (main: electrons in the solid)")
    if comm.rank == 0:
        say(front_report(found))

# ## One picture

if comm.rank == 0:
    from fetopo.plot_front import save_front

    save_front(
        arguments.output / "electrode_front.png",
        [
            drawn(arguments.output / f"porosity_{porosity:g}", found, f"porosity {porosity:g}")
            for porosity, found in fronts.items()
        ],
        ["electronic conductivity, relative to the solid", "ionic conductivity, relative to the electrolyte"],
        "Ions through the pore, electrons through the solid",
    )
say(f"\nwritten to {arguments.output}: electrode_front.png, and for each porosity front.csv and its points")

# ## What must hold
#
# The best for a phase that fills at least half of the cell is near the bound of Hashin and Shtrikman. A rarer
# one would have to be walls finer than the filter: there less is reached. No point lies beyond the common
# bound, and some between the anchors are near it.

for porosity, found in fronts.items():
    values = found.front.values
    assert len(values) == arguments.points, "a point failed"
    for i, f in enumerate((1 - porosity, porosity)):
        alone = values[i, i] / hashin_shtrikman((1 - f, f), (0.0, 1.0), 3)[1]
        least = 0.96 if f >= 0.5 else 0.75
        assert alone > least, f"porosity {porosity}: the best for one alone has {alone:.3f} of its bound"
    shares = [found.share_of_limit(v) or 0.0 for v in values]
    assert max(shares) <= 1.01, "beyond what theory allows, and by more than the volume may be off"
    assert max(shares[2:]) > 0.9, f"porosity {porosity}: no compromise is near the common bound"
    volumes = [found.front.first(n).hypervolume for n in range(2, arguments.points + 1)]
    assert np.all(np.diff(volumes) >= 0), "more points cover less"
    assert volumes[-1] > volumes[0], "the compromises add nothing"
