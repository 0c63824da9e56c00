"""Which slices make a batch."""

import collections
import types

import numpy as np
import pytest

from liverjax.data.sampling import Sampler
from liverjax.data.store import open_store
from liverjax.errors import ConfigError, InputError
from liverjax.options import Batch
from liverjax.views import VIEWS


@pytest.fixture(scope="module")
def cases(tiny_config):
    return open_store(tiny_config.store, tiny_config.preprocess, tiny_config.target).cases


def test_a_draw_is_a_function_of_seed_view_step_and_row(cases):
    def draws(view, seed, steps):
        sampler = Sampler(cases, [view], Batch(), seed)
        return [sampler.draw(step, row) for step in steps for row in range(4)]

    first = draws("axial", 7, range(5))
    assert first == draws("axial", 7, range(5))
    assert first[8:12] == draws("axial", 7, [2])
    assert first != draws("axial", 8, range(5))
    assert first != draws("coronal", 7, range(5))
    assert len(set(first)) == len(first)


def test_shares_of_slices_are_those_of_the_options(cases):
    options = Batch(tumor_share=0.3, liver_share=0.5)
    sampler = Sampler(cases, ["axial"], options, seed=0)
    draws = [sampler.draw(step, 0) for step in range(3000)]
    counts = np.array([cases[d.case].counts["axial"][d.slice] for d in draws])
    # The rest, 20 %, is drawn from all slices and adds to both by their frequency, averaged over cases.
    liver = np.mean([np.mean(case.counts["axial"][:, 0] > 0) for case in cases])
    tumor = np.mean([np.mean(case.counts["axial"][:, 1] > 0) for case in cases])
    with_tumor = [case for case in cases if case.counts["axial"][:, 1].any()]
    tumor_in_liver = sum(
        (case.counts["axial"][:, 1] > 0).sum() / (case.counts["axial"][:, 0] > 0).sum() for case in with_tumor
    ) / len(cases)
    # Four standard deviations of a share of 3000 draws are 0.036.
    assert np.mean(counts[:, 0] > 0) == pytest.approx(0.8 + 0.2 * liver, abs=0.036)
    assert np.mean(counts[:, 1] > 0) == pytest.approx(0.3 + 0.5 * tumor_in_liver + 0.2 * tumor, abs=0.036)


def test_cases_count_alike_whatever_their_number_of_slices(cases):
    sampler = Sampler(cases, ["axial"], Batch(liver_share=1.0), seed=0)
    drawn = collections.Counter(sampler.draw(step, 0).case for step in range(4000))
    assert len(drawn) == len(cases)
    # Of 4000 draws over 8 cases 500 each, with a standard deviation of 21.
    assert all(abs(number - 500) < 5 * 21 for number in drawn.values())


def test_a_share_that_no_case_can_give_is_refused(cases):
    healthy = [case for case in cases if not case.counts["axial"][:, 1].any()]
    assert healthy, "the phantoms of the fixture hold at least one healthy liver"
    with pytest.raises(
        InputError, match=r"no training case has a slice with tumor, but batch.tumor_share is 0.2"
    ):
        Sampler(healthy, ["axial"], Batch(tumor_share=0.2), seed=0)


def test_views_count_alike_whatever_their_number_of_slices(cases):
    sampler = Sampler(cases, VIEWS, Batch(), seed=0)
    draws = [sampler.draw(step, 0) for step in range(3000)]
    assert {cases[0].shapes[view][0] for view in VIEWS} == {36, 40, 48}
    # Of 3000 draws 1000 of each view, with a standard deviation of 26.
    assert all(abs(number - 1000) < 5 * 26 for number in collections.Counter(d.view for d in draws).values())
    assert all(draw.slice < cases[draw.case].shapes[draw.view][0] for draw in draws)


#: Pixels of liver and tumour on the slices of three made-up cases.
_COUNTS = ([[0, 0], [5, 0], [9, 2], [4, 0], [0, 0]], [[3, 0], [0, 0], [0, 0]], [[1, 1], [2, 1]])


def _made_up(counts=_COUNTS):
    return [types.SimpleNamespace(counts={"axial": np.array(count)}) for count in counts]


def test_draws_are_those_of_earlier_versions():
    """A run that goes on with another version must see the slices that it would have seen."""
    sampler = Sampler(_made_up(), ["axial"], Batch(tumor_share=0.25), seed=7)
    draws = [sampler.draw(step, row) for step in range(3) for row in range(4)]
    assert [(draw.case, draw.slice) for draw in draws] == [
        *((2, 0), (0, 1), (0, 2), (1, 1)),
        *((1, 0), (1, 0), (2, 0), (2, 0)),
        *((0, 0), (1, 2), (1, 0), (1, 2)),
    ]
    assert (draws[9].row, draws[9].column) == (0.98931133433261, 0.8957065398471269)


def test_a_share_without_liver_comes_from_cases_that_have_such_slices():
    sampler = Sampler(_made_up(), ["axial"], Batch(liver_share=0.25, empty_share=0.75), seed=0)
    draws = [sampler.draw(step, 0) for step in range(2000)]
    empty = [draw for draw in draws if _COUNTS[draw.case][draw.slice][0] == 0]
    # Four standard deviations of a share of 2000 draws are 0.039.
    assert len(empty) / 2000 == pytest.approx(0.75, abs=0.039)
    assert {(draw.case, draw.slice) for draw in empty} == {(0, 0), (0, 4), (1, 1), (1, 2)}
    with pytest.raises(InputError, match=r"has a slice without liver, but batch.empty_share is 0.1"):
        Sampler(_made_up(_COUNTS[2:]), ["axial"], Batch(empty_share=0.1), seed=0)


def test_shares_above_one_are_refused():
    with pytest.raises(
        ConfigError, match=r"batch.mined_share is \(0.3, 0.5, 0.3, 0.0\), expected .* at most 1"
    ):
        Batch(tumor_share=0.3, liver_share=0.5, empty_share=0.3)
