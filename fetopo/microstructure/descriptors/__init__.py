"""What a phase of an image looks like, in the statistics of the field.

All functions take the mask of one phase and the voxel size, in 2D and 3D. Lengths are in metres, areas per
volume in 1/m. `periodic` says whether the image continues on its other side; without it only what lies inside
counts. Results are frozen dataclasses: `to_dict()` gives plain values for JSON, `plot(ax)` draws them.
"""

from fetopo.microstructure.descriptors.comparison import (
    Alignment,
    Motion,
    Statistics,
    StatisticsDifference,
    align,
    families,
    grouped,
    motions,
    statistics,
    statistics_difference,
)
from fetopo.microstructure.descriptors.connectivity import (
    Clusters,
    TwoPointCluster,
    clusters,
    label_clusters,
    percolating_axes,
    two_point_cluster,
)
from fetopo.microstructure.descriptors.correlation import (
    DOUBLE_PRECISION_SIZE,
    CrossCorrelations,
    TwoPointCorrelation,
    TwoPointMap,
    cross_correlations,
    two_point_along,
    two_point_correlation,
    two_point_map,
)
from fetopo.microstructure.descriptors.lineal import (
    ChordLengths,
    LinealPath,
    chord_lengths,
    lineal_path,
    mean_lineal_path,
)
from fetopo.microstructure.descriptors.orientation import Anisotropy, anisotropy
from fetopo.microstructure.descriptors.pores import PoreSizes, local_thickness, pore_sizes
from fetopo.microstructure.descriptors.summary import Summary, characterize, summarize, volume_fractions
from fetopo.microstructure.descriptors.surface import (
    SurfaceFromCorrelation,
    specific_surface,
    surface_from_correlation,
)

__all__ = [
    "DOUBLE_PRECISION_SIZE",
    "Alignment",
    "Anisotropy",
    "ChordLengths",
    "Clusters",
    "CrossCorrelations",
    "LinealPath",
    "Motion",
    "PoreSizes",
    "Statistics",
    "StatisticsDifference",
    "Summary",
    "SurfaceFromCorrelation",
    "TwoPointCluster",
    "TwoPointCorrelation",
    "TwoPointMap",
    "align",
    "anisotropy",
    "characterize",
    "chord_lengths",
    "clusters",
    "cross_correlations",
    "families",
    "grouped",
    "label_clusters",
    "lineal_path",
    "local_thickness",
    "mean_lineal_path",
    "motions",
    "percolating_axes",
    "pore_sizes",
    "specific_surface",
    "statistics",
    "statistics_difference",
    "summarize",
    "surface_from_correlation",
    "two_point_along",
    "two_point_cluster",
    "two_point_correlation",
    "two_point_map",
    "volume_fractions",
]
