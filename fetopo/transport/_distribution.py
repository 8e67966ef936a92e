"""Distributions of weighted values that are spread over MPI ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Distribution:
    """How a quantity is distributed over a volume.

    Attributes:
        mean, variance: first moment, and second central moment.
        mean_square: second moment.
        maximum: largest value sampled. At a re-entrant corner it grows without limit under refinement.
        percentiles: by percent, the value that this share of the volume does not exceed.
        edges: of the classes of the histogram; the last class reaches up to the maximum.
        density: share of the volume in each class over its width; Σ density·width = 1.
    """

    mean: float
    variance: float
    mean_square: float
    maximum: float
    percentiles: dict[float, float]
    edges: Floats
    density: Floats


class Spread:
    """Values with weights, sorted on each rank; what is asked of all of them together is collective."""

    def __init__(self, comm: MPI.Intracomm, values: Floats, weights: Floats) -> None:
        order = np.argsort(values, kind="stable")
        self.comm, self.values, self.weights = comm, values[order], weights[order]
        self._below = np.concatenate([[0.0], np.cumsum(self.weights)])
        self.total = float(comm.allreduce(float(self._below[-1])))
        self.maximum = float(comm.allreduce(float(values.max(initial=-np.inf)), MPI.MAX))
        self.minimum = float(comm.allreduce(float(values.min(initial=np.inf)), MPI.MIN))

    def mean(self, power: int = 1) -> float:
        return float(self.comm.allreduce(float(self.weights @ self.values**power))) / self.total

    def up_to(self, thresholds: Floats) -> Floats:
        """Share of the weight of values ≤ each threshold."""
        own = self._below[np.searchsorted(self.values, thresholds, side="right")]
        return np.asarray(self.comm.allreduce(own)) / self.total

    def quantiles(self, shares: Sequence[float]) -> Floats:
        """Smallest values that these shares of the weight do not exceed; the same on any number of ranks."""
        wanted = np.asarray(shares) - 1e-12  # sums differ by round-off from one number of ranks to another
        low: Floats = np.full(wanted.size, np.nextafter(self.minimum, -np.inf))
        high: Floats = np.full(wanted.size, self.maximum)
        for _ in range(64):
            middle = 0.5 * (low + high)
            enough = self.up_to(middle) >= wanted
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        # The value itself is the first one beyond `low`.
        at = np.searchsorted(self.values, low, side="right")
        own = np.append(self.values, np.inf)[at]
        first = np.empty_like(own)
        self.comm.Allreduce(own, first, op=MPI.MIN)
        return np.minimum(first, self.maximum)

    def share_of_largest(self, share: float) -> float:
        """Part of Σ weight·value that the largest values have, those of a share of the weight."""
        (cut,) = self.quantiles([1.0 - share])
        beyond = self.values > cut
        own = np.array([self.weights[beyond] @ self.values[beyond], self.weights[beyond].sum()])
        above, weight = self.comm.allreduce(own)
        return float((above + cut * (share * self.total - weight)) / (self.mean() * self.total))

    def distribution(self, percentiles: Sequence[float], edges: Floats) -> Distribution:
        """Moments, percentiles and histogram on given classes (`edges` without the maximum)."""
        mean, square = self.mean(), self.mean(2)
        own = float(self.weights @ (self.values - mean) ** 2)
        variance = float(self.comm.allreduce(own)) / self.total
        found = self.quantiles([p / 100 for p in percentiles])
        edges = np.append(edges, max(float(np.nextafter(edges[-1], np.inf)), self.maximum))
        share = self.up_to(edges[1:])
        density = np.diff(np.concatenate([[0.0], share])) / np.diff(edges)
        named = {float(p): float(v) for p, v in zip(percentiles, found, strict=True)}
        return Distribution(mean, variance, square, self.maximum, named, edges, density)
