"""Where a clause is proved over sub-boxes: against the toy network's classes, known by one line of arithmetic."""

import numpy as np
import pytest
import toy

from specmine.errors import BadConfig, BadData
from specmine.pipeline.volume import Part, halves, proved_volume, share_of
from specmine.rules.syntax import parse_clause
from specmine.tracing import Sites
from verifier.region import Box
from verifier.verdict import Decision, Proved, Unknown

UNIT = Box(np.zeros(2), np.ones(2))
SITES = Sites(toy.network())


def volume(text, region=UNIT, **options):
    return proved_volume(parse_clause(text, sites=SITES), region, SITES, **({"timeout_s": 60.0} | options))


def test_the_class_without_a_body_is_proved_where_the_first_input_is_larger():
    found = volume("class(0) :- true.", most=600)
    inputs = np.random.default_rng(0).random((4000, 2))
    larger = inputs[:, 0] > inputs[:, 1]
    assert not (found.covers(inputs) & ~larger).any(), "nothing is proved where it is wrong"
    assert 0.4 < share_of(found.proved) < 0.5, "half of the square but for a seam that gets thinner"
    assert all(part.box.lower[0] >= part.box.upper[1] - 1e-12 for part in found.proved)
    everything = (*found.proved, *found.refuted, *found.open)
    assert share_of(everything) == pytest.approx(1, abs=1e-12)
    assert np.any([part.holds(inputs) for part in everything], axis=0).all()
    for part in found.refuted:
        assert part.failing[0] <= part.failing[1] and part.holds(part.failing[None])[0]
    shares = [part.share for part in found.proved]
    assert shares == sorted(shares, reverse=True) and len(set(shares)) > 2


def test_a_valid_clause_is_proved_at_the_first_question():
    found = volume("class(0) :- above(h1,0,0.125).")
    assert found.asked == 1 and share_of(found.proved) == 1 and not found.refuted and not found.open


def test_a_clause_that_fails_everywhere_is_never_proved():
    region = Box(np.array([0.0, 2.0]), np.array([1.0, 3.0]))
    found = volume("class(0) :- active(h1,1).", region=region, most=40)
    assert not found.proved and share_of(found.refuted) > 0 and share_of(found.refuted + found.open) == pytest.approx(1)


def test_parts_too_small_to_cut_end_the_search():
    tiny = Box(np.array([0.5, 0.5]), np.nextafter([0.5, 0.5], 1))
    found = volume("class(0) :- true.", region=tiny)
    assert found.asked <= 4 and found.refuted


def test_the_time_ends_the_search_with_what_is_known():
    found = volume("class(0) :- true.", timeout_s=1.0)
    assert found.asked > 0 and share_of((*found.proved, *found.refuted, *found.open)) == pytest.approx(1)


def test_two_proved_halves_are_one_part(monkeypatch):
    """A stand-in for the verifier proves what is at most a quarter of the square, or all but one of the quarters."""

    def answers(most, but=()):
        def decide(queries, **_):
            sides = [(query.region.lower, query.region.upper) for query in queries]
            proved = [np.prod(upper - lower) <= most and lower.tolist() not in but for lower, upper in sides]
            return [Decision(Proved(None) if yes else Unknown("incomplete", ""), "auto", 0.0) for yes in proved]

        return decide

    monkeypatch.setattr("specmine.pipeline.volume.scout_of", lambda query: None)
    monkeypatch.setattr("specmine.pipeline.volume.verify_many", answers(0.25))
    (whole,) = volume("class(0) :- true.").proved
    assert whole.share == 1 and whole.box.upper.tolist() == [1, 1]
    monkeypatch.setattr("specmine.pipeline.volume.verify_many", answers(0.25, but=([0.5, 0.5],)))
    found = volume("class(0) :- true.", most=7)
    assert [part.share for part in found.proved] == [0.5, 0.25]


def test_proved_halves_of_scouted_parts_are_one_part_at_every_level(monkeypatch):
    """A stand-in for the scout finds a proof likely for at most a sixteenth; all that is asked is proved but the whole."""

    class Small:
        def look(self, lower, upper):
            likely = (upper - lower).prod(axis=1) <= 1 / 16
            return likely, np.where(likely, -1, 0)

    def decide(queries, **_):
        whole = [query.region.upper.min() == 1 and query.region.lower.max() == 0 for query in queries]
        return [Decision(Unknown("incomplete", "") if yes else Proved(None), "auto", 0.0) for yes in whole]

    monkeypatch.setattr("specmine.pipeline.volume.scout_of", lambda query: Small())
    monkeypatch.setattr("specmine.pipeline.volume.point_test", lambda query: lambda points: None)
    monkeypatch.setattr("specmine.pipeline.volume.verify_many", decide)
    found = volume("class(0) :- true.")
    assert found.asked == 17 and [part.share for part in found.proved] == [1]


def test_a_side_to_cut_may_be_named():
    region = Box(np.zeros(2), np.array([4.0, 1.0]))
    low, high = halves(Part(region, 1.0), region, side=1)
    assert low.box.upper.tolist() == [4, 0.5] and high.box.lower.tolist() == [0, 0.5]
    thin = Part(Box(np.array([0.0, 0.5]), np.array([4.0, np.nextafter(0.5, 1)])), 0.1)
    assert halves(thin, region, side=1)[0].box.upper[0] == 2, "where it is too narrow the widest is cut"


def test_halves_meet_and_take_the_counterexample_along():
    region = Box(np.array([0.0, 0.0]), np.array([4.0, 1.0]))
    part = Part(Box(np.array([0.0, 0.0]), np.array([1.0, 1.0])), 0.25, np.array([0.2, 0.5]))
    low, high = halves(part, region)
    assert low.box.upper.tolist() == [1, 0.5] and high.box.lower.tolist() == [0, 0.5], "the side widest beside the region's"
    assert low.share == high.share == 0.125
    assert low.failing is not None and high.failing is not None, "it lies on the plane of both"


def test_bad_input():
    with pytest.raises(BadConfig, match="timeout_s and question_s must be above 0"):
        volume("class(0) :- true.", timeout_s=0)
    with pytest.raises(BadData, match="wider than a point"):
        volume("class(0) :- true.", region=Box(np.zeros(2), np.array([1.0, 0.0])))
