"""Effective diffusivity beside PoreSpy and TauFactor: value, guaranteed interval, CPU seconds, peak memory.

    python3 benchmarks/tortuosity.py nmc_electrode.tif --phase 0 --crop 100

Every code runs in a process of its own, one thread, one after the other; seconds are CPU time of all axes
together, from the mask to the value, imports and reading apart. PoreSpy and TauFactor are optional: install
them into a directory outside the checkout (`pip install --target DIRECTORY porespy taufactor`), show it with
FETOPO_MOUNT and name it in PYTHONPATH. A code that is not there is left out with a sentence. Before times are
printed the values are checked: the codes' finite volumes against ours, and all intervals for their order.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CODES = {
    "fetopo, finite volumes": "finite volumes",
    "fetopo, elements": "elements",
    "fetopo, interval": "interval",
    "PoreSpy": "porespy",
    "TauFactor": "taufactor",
}
#: Largest relative difference of the peers' finite volumes from ours: their tolerance is 1e-4 on the flux.
AGREEMENT = 6e-3


def ours(mask: np.ndarray, method: Any) -> list[dict[str, float | None]]:
    from mpi4py import MPI

    from fetopo.transport.tortuosity import tortuosity

    return [
        {
            "value": r.relative_diffusivity,
            "lower": r.lower_bound,
            "upper": r.upper_bound,
            "best": r.best_estimate,
            "volumes": r.finite_volumes,
        }
        for r in tortuosity(MPI.COMM_SELF, mask, method=method)
    ]


def porespy(mask: np.ndarray) -> list[dict[str, float | None]]:
    import porespy as ps

    found = [ps.simulations.tortuosity_fd(im=mask, axis=axis) for axis in range(mask.ndim)]
    return [{"value": float(f.effective_porosity / f.tortuosity)} for f in found]


def taufactor(mask: np.ndarray) -> list[dict[str, float | None]]:
    import taufactor as tau
    import torch

    torch.set_num_threads(1)
    values = []
    for axis in range(mask.ndim):
        solver = tau.Solver(np.moveaxis(mask, axis, 0).astype(np.uint8), device="cpu")
        solver.solve(verbose=False)
        values.append({"value": float(np.asarray(solver.D_eff).reshape(-1)[0])})
    return values


def child(code: str, path: Path, phase: int, crop: int | None) -> None:
    """Run one code and print one JSON object."""
    from fetopo.microstructure.image import read

    warnings.simplefilter("ignore")
    image = read(path) if crop is None else read(path, crop=crop)
    mask = image.labels == phase
    if code in ("porespy", "taufactor"):
        try:
            module = __import__(code)
        except ImportError:
            print(json.dumps({"absent": True}))
            return
        if code == "porespy":
            module.settings.tqdm["disable"] = True
            run: Any = porespy
        else:
            run = taufactor
    else:
        import fetopo.transport.tortuosity  # noqa: F401

        def run(m: np.ndarray) -> Any:
            return ours(m, code)

    start = time.process_time()
    values = run(mask)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"values": values, "seconds": seconds, "MiB": peak, "porosity": float(mask.mean())}))


def check(results: dict[str, Any]) -> None:
    interval = results.get("interval")
    if interval is None:
        return
    for axis, ref in enumerate(interval["values"]):
        if not ref["volumes"] <= ref["lower"] <= ref["best"] <= ref["upper"]:
            raise SystemExit(f"axis {axis}: the interval is out of order: {ref}")
        for code in ("porespy", "taufactor"):
            if code in results:
                value = results[code]["values"][axis]["value"]
                if not abs(value / ref["volumes"] - 1) <= AGREEMENT:
                    raise SystemExit(f"axis {axis}: {code} has {value}, our finite volumes {ref['volumes']}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Effective diffusivity beside PoreSpy and TauFactor.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--phase", type=int, default=0)
    parser.add_argument("--crop", type=int, help="side of the centred cube")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.image, arguments.phase, arguments.crop)
        return
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = os.environ | dict.fromkeys(threads, "1")
    results: dict[str, Any] = {}
    for name, code in CODES.items():
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--child", code],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{name} failed:\n{done.stderr}")
        # The peers print lines of their own too.
        found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"')))
        if found.get("absent"):
            print(f"{name} is not installed here: left out.")
        else:
            results[code] = found
    check(results)
    some = results["interval"]
    crop = f", centred {arguments.crop}³" if arguments.crop else ""
    print(f"\n{arguments.image.name}{crop}, phase {arguments.phase}, porosity {some['porosity']:.5f}\n")
    axes = " / ".join(str(a) for a in range(len(some["values"])))
    print(f"| code | D_eff/D₀, axes {axes} | CPU s | peak MiB |")
    print("|---|---|---|---|")
    for name, code in CODES.items():
        if code in results:
            found = results[code]
            values = " / ".join(f"{v['value']:.5f}" for v in found["values"])
            print(f"| {name} | {values} | {found['seconds']:.1f} | {found['MiB']:.0f} |")
    print("\n| axis | lower bound | best estimate | upper bound | width | finite volumes |")
    print("|---|---|---|---|---|---|")
    for axis, v in enumerate(some["values"]):
        width = 100 * (v["upper"] - v["lower"]) / v["best"]
        print(
            f"| {axis} | {v['lower']:.5f} | {v['best']:.5f} | {v['upper']:.5f} | {width:.1f} % "
            f"| {v['volumes']:.5f} |"
        )


if __name__ == "__main__":
    main()
