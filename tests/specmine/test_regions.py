import numpy as np
import pytest
import toy

from specmine.errors import BadConfig
from specmine.regions import ball_around, ball_centers, domain_of, radius_of
from verifier.region import exact_bounds


def test_the_domain_is_the_data_sets():
    region = domain_of(toy.dataset())
    assert region.name == "domain" and region.region.upper.tolist() == [1.0, 1.0]


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
    with pytest.raises(BadConfig, match="write domain, or ball:RADIUS"):
        radius_of("sphere")
