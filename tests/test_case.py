"""Case files: defaults, units, and one sentence for everything that cannot be run."""

import numpy as np
import pytest

from fetopo.case import DEFAULT_DISCRETIZATION, CaseError, read_case, start_from_image
from fetopo.design import constraints as asked
from fetopo.design.cell import Goal
from fetopo.design.continuation import Continuation
from fetopo.microstructure.image import Image, write

GOOD = """
[cell]
shape = [16, 16]
[material]
conductivity = [0.01, 1]
volume_fraction = 0.5
[objective]
maximize = "isotropic"
"""


@pytest.fixture
def case_file(tmp_path):
    """Write a case file and return its path."""

    def make(text):
        path = tmp_path / "case.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return make


def test_defaults(case_file):
    case = read_case(case_file(GOOD))
    assert case.conductivity == (0.01, 1.0)
    assert case.lengths == [1.0, 1.0]
    assert case.filter_radius == pytest.approx(3 / 16)
    assert case.goal() == Goal("isotropic")
    assert case.options().stages is None
    assert case.options().continuation == Continuation(penalties=(case.material.penalty,))


@pytest.mark.parametrize("name", ["mesh", "voxel"])
def test_discretization(case_file, name):
    assert read_case(case_file(f'discretization = "{name}"\n' + GOOD)).discretization == name
    assert read_case(case_file(GOOD)).discretization == DEFAULT_DISCRETIZATION


def test_size_of_a_voxel(case_file):
    case = read_case(case_file(GOOD.replace("16]\n", "8]\nlengths = [4e-6, 2e-6]\n")))
    assert case.voxel_size == pytest.approx([2.5e-7, 2.5e-7])
    assert case.filter_radius == pytest.approx(7.5e-7)


def test_directions(case_file):
    assert read_case(case_file(GOOD.replace('"isotropic"', '"y"'))).goal() == Goal("along", (0.0, 1.0))
    assert read_case(case_file(GOOD.replace('"isotropic"', "[1, 2]"))).goal() == Goal("along", (1.0, 2.0))


REFUSED = [
    ("unknown key", GOOD + "[filter]\nradios = 0.1", "unknown key filter.radios"),
    ("unknown section", GOOD + "[fitler]\nradius = 0.1", "unknown key fitler"),
    ("missing key", GOOD.replace("volume_fraction = 0.5", ""), "missing key material.volume_fraction"),
    ("wrong type", GOOD.replace("0.5", '"half"'), "material.volume_fraction"),
    ("a flag is no number", GOOD.replace("0.5", "true"), "material.volume_fraction"),
    ("out of range", GOOD.replace("0.5", "1.5"), "material.volume_fraction"),
    ("not finite", GOOD.replace("0.01", "nan"), "material.conductivity"),
    ("order", GOOD.replace("[0.01, 1]", "[1, 0.01]"), "material.conductivity"),
    ("no such goal", GOOD.replace('"isotropic"', '"up"'), "objective.maximize"),
    ("no such axis", GOOD.replace('"isotropic"', '"z"'), "objective.maximize"),
    ("zero direction", GOOD.replace('"isotropic"', "[0, 0]"), "objective.maximize"),
    ("two goals", GOOD + "target = [[0.2, 0], [0, 0.2]]", "objective"),
    ("empty cell", GOOD.replace("[16, 16]", "[16, 0]"), "cell.shape"),
    ("1D", GOOD.replace("[16, 16]", "[16]"), "cell.shape"),
    (
        "no such discretization",
        'discretization = "pixel"\n' + GOOD,
        "discretization: input should be 'mesh' or",
    ),
    ("discretization is a name", "discretization = 1\n" + GOOD, "discretization"),
    ("half a voxel", GOOD.replace("[16, 16]", "[16.5, 16]"), "cell.shape"),
    ("lengths of another dimension", GOOD.replace("16]\n", "16]\nlengths = [1.0]\n"), "cell.lengths"),
    ("filter as wide as the cell", GOOD + "[filter]\nradius = 0.6", "filter.radius"),
    ("missing image", GOOD + '[start]\nimage = "nowhere.tif"', "start.image"),
    ("not TOML", "[cell", "not a TOML file"),
]


@pytest.mark.parametrize(("text", "key"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused_with_one_sentence_that_names_the_key(case_file, text, key):
    with pytest.raises(CaseError) as error:
        read_case(case_file(text))
    message = str(error.value)
    assert key in message
    assert "\n" not in message


@pytest.mark.parametrize("value", [0.36, 0.02])
def test_isotropic_target_outside_the_hashin_shtrikman_bounds(case_file, value):
    text = GOOD.replace('maximize = "isotropic"', f"target = [[{value}, 0], [0, {value}]]")
    with pytest.raises(CaseError, match=r"objective\.target.*Hashin–Shtrikman bounds are \[0\.029.*, 0\.342"):
        read_case(case_file(text))


def test_isotropic_target_inside_them(case_file):
    text = GOOD.replace('maximize = "isotropic"', "target = [[0.2, 0], [0, 0.2]]")
    assert read_case(case_file(text)).goal().kind == "target"


def test_missing_case_file(tmp_path):
    with pytest.raises(CaseError, match="no such case file"):
        read_case(tmp_path / "nowhere.toml")


def test_start_from_image(case_file, tmp_path):
    labels = np.zeros((8, 8), dtype=np.uint8)
    labels[:4] = 3
    write(tmp_path / "start.tif", Image(labels, (1e-6, 1e-6)))
    path = case_file(GOOD + '[start]\nimage = "start.tif"\nphase = 3')
    start = start_from_image(read_case(path), path)
    assert start.shape == (16, 16)
    assert start[3, 5] == pytest.approx(0.8)
    assert start[12, 5] == pytest.approx(0.2)


def test_start_from_image_without_that_phase(case_file, tmp_path):
    write(tmp_path / "start.tif", Image(np.eye(8, dtype=np.uint8), (1e-6, 1e-6)))
    path = case_file(GOOD + '[start]\nimage = "start.tif"\nphase = 7')
    with pytest.raises(CaseError, match=r"start\.image"):
        start_from_image(read_case(path), path)


IONS = "[transport.ions]\nconductivity = [1, 0.01]\n"


class TestConstraints:
    """`[[constraint]]` and further transports become what `design_cell` takes."""

    def test_all_kinds(self, case_file):
        text = GOOD + IONS + "[filter]\nradius = 0.2\n"
        for lines in (
            'kind = "volume"\nat_least = 0.4\nat_most = 0.6',
            'kind = "isotropy"\nat_most = 0.05',
            'kind = "conductivity"\ntransport = "ions"\nalong = "y"\nat_least = 0.1',
            'kind = "conductivity"\nat_least = 0.1',
            'kind = "length"\nat_least = 0.1\nphase = 0',
            'kind = "interface"\nat_most = 4',
            'kind = "connected"\nphase = 0\nalong = ["x"]\nshare = 0.2',
        ):
            text += f"[[constraint]]\n{lines}\n"
        case = read_case(case_file(text))
        assert case.transports == {"ions": (1.0, 0.01)}
        assert case.constraints() == [
            asked.VolumeFraction(at_least=0.4, at_most=0.6),
            asked.Isotropy(0.05),
            asked.LeastConductivity(0.1, "ions", (0.0, 1.0)),
            asked.LeastConductivity(0.1),
            asked.SmallestLength(0.1, 0),
            asked.Interface(at_most=4.0),
            asked.Connected(0, (0,), 0.2),
        ]

    def test_objectives(self, case_file):
        def goal(line, more=""):
            return read_case(case_file(GOOD.replace('maximize = "isotropic"', line) + more)).goal()

        assert goal("tortuosity = 2") == Goal("tortuosity", value=2.0)
        assert goal("bruggeman = 1.6") == Goal("bruggeman", value=1.6)
        assert goal('minimize = "tortuosity"') == Goal("tortuosity")
        assert goal('minimize = "bruggeman"\nalong = "y"') == Goal("bruggeman", (0.0, 1.0))
        line = 'maximize = "x"\ntransports = ["main", "ions"]\nweights = [1, 2]\ncombine = "sum"'
        expected = Goal("along", (1.0, 0.0), transports=("main", "ions"), weights=(1.0, 2.0), combine="sum")
        assert goal(line, IONS) == expected

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('[[constraint]]\nkind = "shape"', "constraint.0: "),
            (
                '[[constraint]]\nkind = "isotropy"\nat_most = 0.1\nto = 1',
                "unknown key constraint.0.isotropy.to",
            ),
            ('[[constraint]]\nkind = "volume"', r"constraint 1 \(volume\): .*at_least, at_most or both"),
            ('[[constraint]]\nkind = "conductivity"\nat_least = 0.4', r"constraint 1 .*exists is 0\.342"),
            (
                '[[constraint]]\nkind = "conductivity"\nat_least = 0.1\ntransport = "heat"',
                "no transport 'heat'",
            ),
            ('[[constraint]]\nkind = "length"\nat_least = 0.4', "filter radius of at least"),
            ('[[constraint]]\nkind = "connected"\nphase = 1\nalong = ["z"]', "no axis 'z'"),
            ("[transport.ions]\nconductivity = [1, 1]", r"transport\.ions\.conductivity: .*different"),
            ("[transport.ions]\nconductivity = [1]", r"transport\.ions\.conductivity"),
        ],
    )
    def test_refused(self, case_file, text, message):
        with pytest.raises(CaseError, match=message) as error:
            read_case(case_file(GOOD + text))
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("tortuosity = 1.2", r"objective\.tortuosity: .*the nearest that exists is 1\.461"),
            ("tortuosity = 1.5\nbruggeman = 1.5", "give exactly one of maximize, minimize"),
            ('maximize = "x"\nalong = "y"', "along goes with minimize"),
            ('maximize = "x"\ntransports = ["main", "ions"]', "no transport 'ions'; there are main"),
        ],
    )
    def test_objective_refused(self, case_file, line, message):
        with pytest.raises(CaseError, match=message):
            read_case(case_file(GOOD.replace('maximize = "isotropic"', line)))

    def test_a_floor_may_need_the_volume_that_another_constraint_allows(self, case_file):
        floor = '[[constraint]]\nkind = "conductivity"\nat_least = 0.4\n'
        volume = '[[constraint]]\nkind = "volume"\nat_most = 0.7\n'
        assert len(read_case(case_file(GOOD + floor + volume)).constraints()) == 2


class TestRegionsAndMethods:
    def test_keys(self, case_file):
        text = GOOD.replace("16]\n", '16]\nsymmetry = "square"\n', 1).replace(
            "volume_fraction = 0.5", 'volume_fraction = 0.5\ninterpolation = "hashin-shtrikman"'
        )
        text += '[optimizer]\nname = "gcmma"\n[filter]\nkind = "convolution"\n'
        text += "[[passive]]\nphase = 1\nlower = [0, 0]\nupper = [0.25, 1]\n"
        case = read_case(case_file('discretization = "voxel"\n' + text))
        assert case.options().optimizer == "gcmma"
        assert case.cell.symmetry == "square"
        assert case.law().__name__ == "hashin_shtrikman_2d"
        regions = case.passive_regions()
        assert set(regions) == {"solid"}
        points = np.array([[0.1, 0.3, 0.25], [0.5, 0.5, 1.0], [0.0, 0.0, 0.0]])
        assert regions["solid"](points).tolist() == [True, False, True]
        assert read_case(case_file(GOOD)).passive_regions() is None

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("16]\n", '16]\nsymmetry = "z"\n', r"cell\.symmetry: a 2D cell has no symmetry 'z'"),
            ("16]\n", '8]\nsymmetry = "square"\n', r"cell\.symmetry: 'square' needs edges"),
            ("16]\n", '16]\nsymmetry = "round"\n', r"cell\.symmetry"),
            (
                "[objective]",
                "[[passive]]\nphase = 1\nlower = [0, 1]\nupper = [1, 0]\n[objective]",
                "passive 1",
            ),
            ("[objective]", '[optimizer]\nname = "newton"\n[objective]', r"optimizer\.name"),
        ],
    )
    def test_refused(self, case_file, old, new, message):
        with pytest.raises(CaseError, match=message):
            read_case(case_file(GOOD.replace(old, new, 1)))

    def test_convolution_on_a_mesh(self, case_file):
        text = 'discretization = "mesh"\n' + GOOD + '[filter]\nkind = "convolution"\n'
        with pytest.raises(CaseError, match=r"filter\.kind: 'convolution' needs the discretization 'voxel'"):
            read_case(case_file(text))
