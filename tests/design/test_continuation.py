"""The continuation: which stage follows which, and that a design is crisp at its end."""

import numpy as np
import pytest

from fetopo.design.cell import design_cell
from fetopo.design.continuation import Continuation, GivenStages, Stage
from fetopo.design.problem import LoopOptions
from fetopo.transport.voxel import VoxelGrid


def stages(rule, grey):
    """All stages, for a grey level that is a function of the stage."""
    found = [rule.first()]
    while (following := rule.after(len(found) - 1, found[-1], grey(found[-1]))) is not None:
        found.append(following)
    return found


class TestRule:
    def test_penalty_first_then_sharpness_until_crisp(self):
        rule = Continuation(penalties=(1.0, 2.0, 3.0), grey=0.01)
        found = stages(rule, lambda stage: 0.1 / stage.beta)
        assert found == [
            Stage(1.0, 1.0),
            Stage(2.0, 1.0),
            Stage(3.0, 1.0),
            Stage(3.0, 2.0),
            Stage(3.0, 4.0),
            Stage(3.0, 8.0),
            Stage(3.0, 16.0),
        ]

    def test_a_crisp_design_still_sees_every_penalty(self):
        assert stages(Continuation(penalties=(1.0, 3.0)), lambda stage: 0.0) == [Stage(1, 1), Stage(3, 1)]

    def test_sharpness_ends_at_its_maximum(self):
        rule = Continuation(beta=2.0, factor=3.0, max_beta=20.0)
        assert [s.beta for s in stages(rule, lambda stage: 1.0)] == [2.0, 6.0, 18.0, 20.0]

    @pytest.mark.parametrize(
        "rule",
        [
            Continuation(),
            Continuation(penalties=(1.0, 2.0, 3.0)),
            Continuation(beta=2.0, factor=3.0, max_beta=20.0),
            Continuation(beta=8.0, max_beta=8.0),
            GivenStages((Stage(1, 1), Stage(3, 2), Stage(3, 8))),
        ],
    )
    def test_number_of_stages_to_come(self, rule):
        found = stages(rule, lambda stage: 1.0)
        assert [rule.most(i, s) for i, s in enumerate(found)] == list(range(len(found)))[::-1]

    def test_given_stages_do_not_look_at_the_grey_level(self):
        given = (Stage(1, 1), Stage(3, 2), Stage(3, 8))
        for grey in (0.0, 1.0):
            assert tuple(stages(GivenStages(given), lambda stage, grey=grey: grey)) == given

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"penalties": ()}, r"at least one, found \[\]"),
            ({"penalties": (3.0, 1.0)}, r"rising and not negative, at least one, found \[3.0, 1.0\]"),
            ({"penalties": (-1.0,)}, r"found \[-1.0\]"),
            ({"penalties": (np.nan,)}, r"found \[nan\]"),
            ({"beta": 0.0}, "found 0.0 and 128.0"),
            ({"beta": 200.0}, "found 200.0 and 128.0"),
            ({"factor": 1.0}, "factor must exceed 1, found 1.0"),
            ({"grey": 1.0}, "found 1.0"),
            ({"grey": np.nan}, "found nan"),
        ],
    )
    def test_values_out_of_range(self, options, message):
        with pytest.raises(ValueError, match=message):
            Continuation(**options)

    def test_no_stages(self):
        with pytest.raises(ValueError, match="at least one stage"):
            LoopOptions(stages=())


@pytest.mark.mpi
class TestDesigns:
    @pytest.mark.parametrize(
        ("start", "fraction"), [("inclusions", 0.3), ("inclusions", 0.7), ("random", 0.5)]
    )
    def test_crisp_at_the_end(self, comm, start, fraction):
        grid = VoxelGrid(comm, (32, 32), 1 / 32, periodic=True)
        design = design_cell(
            grid,
            conductivity=(0.01, 1.0),
            volume_fraction=fraction,
            filter_radius=0.16,
            start=start,
            seed=1,
        )
        result = design.result
        assert result.converged
        assert result.grey_level < 0.01
        assert design.bound_fraction > 0.97
        # Every stage is one step of the rule, and settled before its limit.
        betas = sorted({r.beta for r in result.history})
        assert betas == [2.0**i for i in range(len(betas))]
        assert result.history[-1].bound_fraction == pytest.approx(design.reached / design.bound, rel=1e-3)

    def test_penalty_rises_where_it_is_asked_to(self, comm):
        grid = VoxelGrid(comm, (16, 16), 1 / 16, periodic=True)
        options = LoopOptions(
            continuation=Continuation(penalties=(2.0, 3.0), max_beta=2.0), final_iterations=5
        )
        design = design_cell(
            grid, conductivity=(0.01, 1.0), volume_fraction=0.5, filter_radius=0.2, options=options
        )
        seen = list(dict.fromkeys((r.penalty, r.beta) for r in design.result.history))
        assert seen == [(2.0, 1.0), (3.0, 1.0), (3.0, 2.0)]
