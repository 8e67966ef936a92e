"""fetopo: inverse design of microstructures with finite elements.

Rooms, in the order data flows: :mod:`fetopo.microstructure` (what a material looks like),
:mod:`fetopo.transport` (what it does), :mod:`fetopo.design` (which structure does what one wants).
"""

from fetopo._mpi import install_excepthook as _install_excepthook

__version__ = "0.1.0"

# Cheap and without MPI: only an exception that nobody catches on one of several ranks looks at it.
_install_excepthook()
