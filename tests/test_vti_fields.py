"""VTK ImageData written without VTK, read by VTK."""

import numpy as np
import pytest

from fetopo._vti import write_voxel_fields


@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 3)])
def test_vtk_reads_what_was_written(tmp_path, shape):
    vtk = pytest.importorskip("vtkmodules.vtkIOXML", reason="VTK is not installed")
    from vtkmodules.util.numpy_support import vtk_to_numpy

    rng = np.random.default_rng(0)
    dim = len(shape)
    fields = {
        "density": rng.random(shape),
        "crisp": rng.integers(0, 2, shape).astype(np.uint8),
        "flux & more": rng.random((*shape, dim)),
        "absent": None,
    }
    write_voxel_fields(tmp_path / "a.vti", fields, (0.5, 0.25, 2.0)[:dim])
    assert [path.name for path in tmp_path.iterdir()] == ["a.vti"]
    reader = vtk.vtkXMLImageDataReader()
    reader.SetFileName(str(tmp_path / "a.vti"))
    reader.Update()
    image = reader.GetOutput()
    assert image.GetDimensions() == (5, 4, 3 if dim == 3 else 2)
    assert image.GetSpacing() == ((0.5, 0.25, 2.0) if dim == 3 else (0.5, 0.25, 0.25))
    data = image.GetCellData()
    assert data.GetNumberOfArrays() == 3
    for name in ("density", "crisp"):
        found = vtk_to_numpy(data.GetArray(name))
        assert found.dtype == fields[name].dtype
        assert np.array_equal(found.reshape(shape[::-1]).T, fields[name])
    flux = vtk_to_numpy(data.GetArray("flux & more"))
    assert flux.shape[1] == 3
    for i in range(dim):
        assert np.array_equal(flux[:, i].reshape(shape[::-1]).T, fields["flux & more"][..., i])
