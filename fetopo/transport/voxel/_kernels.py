"""The compiled kernels, built at the first use and kept."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy.typing as npt

from fetopo._compile import compiled

HERE = Path(__file__).parent
HEADERS = (HERE / "_level.h", HERE / "_rows.h")
FOREST = HERE / "_forest.h"
FLAGS = (
    "-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros",
    "-fassociative-math", "-Wno-unused-function",
)  # fmt: skip

_MULTIGRID = """
void wrap_ff(const level *L, float *x, int32_t rhs);
void wrap_dd(const level *L, double *x, int32_t rhs);
void smooth_first(const level *L);
void smooth_second(const level *L);
void smooth_third(const level *L);
void smooth_fourth(const level *L, double *products);
void restrict_residual(const level *L, const level *C);
void sum_of_load(const level *L, double *sum);
void shift_load(const level *L, const double *less);
void prolong(const level *L, const level *C);
void cycle(const level *levels, int32_t here, int32_t last, int32_t guess, double *products);
void apply(const level *L, const float *p, double *products);
void advance(const level *L, const double *alpha, const float *p, double *solution, double *squares);
void direction(const level *L, const double *beta, float *p);
void residual(const level *L, const double *u, const double *gradient, const double *source, double *squares);
void faces(const level *L);
void encode(const level *L, const uint8_t *mask);
void coarsen(const level *L, const level *C);
void strength(const level *L, double *out);
double interfaces(const level *L, double share);
"""

_ENERGY = """
void volumes_energy(const level *L, const double *u, const double *gradient, double *energy);
void volumes_flux(const level *L, const double *u, const double *gradient, const double *source, int32_t axis,
                  double *mean, double *energy, double *net, double *faces, double *plane);
void volumes_derivative(const level *L, const double *u, const double *gradient, const double *weight,
                        double *derivative);
void elements_energy(const level *L, const double *u, const double *gradient, const double *weight,
                     int32_t axis, double *energy, double *layer, double *derivative);
"""

_CLUSTERS = """
void strongest(const level *L);
int64_t clusters(const level *L, double share, int32_t *parent);
void cluster_sums(const level *L, double share, const int32_t *number, int64_t *size, double *within,
                  double *across);
int64_t cluster_links(const level *L, double share, const int32_t *number, int32_t *pairs);
void cluster_gather(const level *L, int32_t started, int64_t count, const int32_t *at, const int32_t *number,
                    int64_t clusters, double *load, double *residual);
void cluster_scatter(const level *L, int64_t count, const int32_t *at, const int32_t *number,
                     int64_t clusters, const double *values);
"""

_PIECES = """
double largest(const level *L);
void parted(const level *L, double strong, const int64_t *first, int64_t *counts);
int64_t pieces(const level *L, double strong, int64_t block, const int64_t *first, int32_t *parent,
               int32_t *number);
int64_t piece_links(const level *L, const int32_t *number, int64_t offset, int32_t *pairs, double *values,
                    double *diagonal, double *leak);
void piece_gather(const level *L, int32_t started, const int32_t *number, int64_t offset, int64_t count,
                  double *load, double *residual);
void piece_scatter(const level *L, const int32_t *number, int64_t total, const double *values);
"""


def _structure() -> str:
    text = HEADERS[0].read_text(encoding="utf-8")
    found = re.search(r"enum \{.*?\};.*?typedef struct \{.*?\} level;", text, re.DOTALL)
    assert found is not None
    return re.sub(r"/\*.*?\*/", "", found[0], flags=re.DOTALL)


@cache
def multigrid() -> Any:
    """Kernels of operators, smoothing, transfer and conjugate gradients, with `ffi` and `lib`.

    Raises:
        RuntimeError: no C compiler, or it refuses the source.
    """
    return compiled(
        HERE / "_multigrid.c", _structure() + _MULTIGRID, name="multigrid", flags=FLAGS, headers=HEADERS
    )


@cache
def energy() -> Any:
    """Kernels of energies, fluxes and derivatives; see :func:`multigrid`."""
    return compiled(
        HERE / "_energy.c", _structure() + _ENERGY, name="energy", flags=FLAGS, headers=HEADERS[:1]
    )


@cache
def clusters() -> Any:
    """Kernels of clusters of strongly bound unknowns; see :func:`multigrid`."""
    return compiled(
        HERE / "_clusters.c",
        _structure() + _CLUSTERS,
        name="clusters",
        flags=FLAGS,
        headers=(HEADERS[0], FOREST),
    )


@cache
def pieces() -> Any:
    """Kernels of conductors cut to pieces by blocks; see :func:`multigrid`."""
    return compiled(
        HERE / "_pieces.c", _structure() + _PIECES, name="pieces", flags=FLAGS, headers=(*HEADERS, FOREST)
    )


def pointer(ffi: Any, kind: str, values: npt.NDArray[Any] | None) -> Any:
    """C pointer to the first entry of a contiguous array; NULL for None."""
    if values is None:
        return ffi.NULL
    if not values.flags.c_contiguous:
        raise ValueError("kernels work on contiguous arrays")
    return ffi.cast(f"{kind} *", values.ctypes.data)
