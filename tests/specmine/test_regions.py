import numpy as np
import pytest
import toy

from specmine.data import MINE
from specmine.errors import BadConfig
from specmine.pipeline.stages import verify_stage
from specmine.regions import ball_around, ball_centers, box_of, data_box_of, domain_of, radius_of
from verifier.region import exact_bounds


def test_the_domain_is_the_data_sets():
    region = domain_of(toy.dataset())
    assert region.name == "domain" and region.region.upper.tolist() == [1.0, 1.0]


def test_the_box_of_the_data_is_that_of_the_mining_samples():
    data = toy.dataset()
    mined = data.x[data.split == MINE].reshape(-1, 2)
    region = data_box_of(data)
    assert region.name == "data" and region.sample is None
    assert region.region.lower.tolist() == mined.min(axis=0).tolist()
    assert region.region.upper.tolist() == mined.max(axis=0).tolist()
    assert (region.region.upper < 1).all(), "smaller than the domain, or the next lines would say nothing"
    assert box_of(data, "data").region.upper.tolist() == region.region.upper.tolist()
    assert box_of(data, "domain").region.upper.tolist() == [1.0, 1.0]


def test_claims_over_the_data_are_not_counted_as_verified(tmp_path):
    done = verify_stage(toy.run(tmp_path, regions=("data",)))
    proved = [claim for claim in done.claims if claim.outcome.verdict == "proved"]
    assert proved and all(claim.region.name == "data" for claim in done.claims)
    assert done.verified == () and done.verified_recall == 0


def test_a_ball_is_clipped_to_the_domain():
    data = toy.dataset()
    ball = ball_around(data, 4, 0.75)
    lower, upper = exact_bounds(ball.region)
    assert ball.name == "ball:0.75:4" and ball.sample == 4
    assert [float(v) for v in lower] == np.maximum(data.x[4] - 0.75, 0).tolist()
    assert all(v <= 1 for v in upper)


def test_centers_are_correct_samples_of_every_class():
    data = toy.dataset()
    predictions = data.y.copy()
    predictions[::3] = -1
    rows = np.arange(40)
    centers = ball_centers(data, predictions, rows, per_class=3, seed=1)
    assert len(centers) == 6 and set(data.y[centers]) == {0, 1}
    assert all(predictions[c] == data.y[c] and c < 40 for c in centers)
    assert centers == ball_centers(data, predictions, rows, per_class=3, seed=1)


def test_radius_of_bad_text():
    with pytest.raises(BadConfig, match="write domain, data, or ball:RADIUS"):
        radius_of("sphere")
