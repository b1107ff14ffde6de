"""Pictures of predicates: the frame is around what a neuron sees, the marks are on the entries that a predicate speaks of."""

import base64
import io

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import nn

from specmine.pipeline import mine, open_run
from specmine.predicates.predicate import Predicate
from specmine.report.figures import TINT, attention_map, picture, window_picture
from specmine.report.pictures import predicate_picture

EFFORT = {"timeout_s": 0.5, "budget_s": 1.0, "exports": (), "jobs": 1, "thresholds": 2, "synthesis": ("threshold",)}


def pixels(uri):
    assert uri.startswith("data:image/png;base64,")
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))[..., :3]


def tinted(image):
    return np.abs(image - TINT).max(axis=2) < 0.01


def test_the_frame_holds_the_window():
    reaction = np.zeros((8, 8))
    reaction[2:4, 5:7] = 1.0
    image = pixels(window_picture(picture(np.zeros(64), (8, 8), 0.0, 1.0), reaction))
    scale = image.shape[0] // 8
    rows, columns = np.nonzero(tinted(image))
    assert (rows.min(), rows.max()) == (2 * scale, 4 * scale - 1)
    assert (columns.min(), columns.max()) == (5 * scale, 7 * scale - 1)
    assert not tinted(pixels(window_picture(picture(np.zeros(64), (8, 8), 0.0, 1.0), np.zeros((8, 8))))).any()


def test_the_marks_are_on_the_entries():
    image = pixels(attention_map(np.eye(4), [(2, 1)]))
    scale = image.shape[0] // 4
    rows, columns = np.nonzero(tinted(image))
    assert {(r // scale, c // scale) for r, c in zip(rows.tolist(), columns.tolist(), strict=True)} == {(2, 1)}
    assert image[scale // 2, scale // 2].max() < 0.01 < image[scale // 2, scale + scale // 2].min(), "dark where probable"


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.head = nn.Linear(3, 3), nn.Linear(12, 2)

    def forward(self, x):
        hidden = torch.ones(4, 4, dtype=torch.bool).triu(1)
        scores = (self.query(x) @ x.transpose(-1, -2)).masked_fill(hidden, -torch.inf)
        return self.head((scores.softmax(-1) @ x).flatten(1))


@pytest.fixture(scope="module")
def attending(tmp_path_factory):
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(120, 4, 3))
    out = tmp_path_factory.mktemp("runs") / "run"
    mine(Attending(), (x, np.arange(120) % 2), out=out, families=("attention",), **EFFORT)
    return open_run(out)


def test_a_run_over_attention_pictures_its_heads(attending):
    strongest = attending.strongest
    assert strongest and {strong.family for strong in strongest} == {"attention"}
    page = (attending.folder / "report.html").read_text()
    assert "Strongest predicates" in page and page.count('class="predicate"') >= 2


@pytest.mark.parametrize(
    ("predicate", "entries"),
    [
        (("focus", ("a1", 0, 3, 1, 0.25)), {(3, 1)}),
        (("previous_token", ("a1", 0, 0.5)), {(1, 0), (2, 1), (3, 2)}),
        (("prefers", ("s1", 0, 2, 0, 1)), {(2, 0), (2, 1)}),
    ],
)
def test_an_attention_map_marks_what_the_predicate_says(attending, predicate, entries):
    image = pixels(predicate_picture(attending.exhibit, Predicate(*predicate)))
    scale = image.shape[0] // 4
    rows, columns = np.nonzero(tinted(image))
    assert {(r // scale, c // scale) for r, c in zip(rows.tolist(), columns.tolist(), strict=True)} == entries


def test_what_a_head_writes_is_pictured_on_the_input(attending):
    image = pixels(predicate_picture(attending.exhibit, Predicate("writes", ("o1", 0, 1, 0.1))))
    assert image.shape[0] * 3 == image.shape[1] * 4 and tinted(image).any()


def test_a_neuron_of_a_convolution_sees_its_window(tmp_path):
    module = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        module[0].weight.fill_(0.1)
    x = np.random.default_rng(0).random((60, 1, 6, 6))
    mine(module, (x, np.arange(60) % 2), out=tmp_path / "run", **EFFORT)
    exhibit = open_run(tmp_path / "run").exhibit
    image = pixels(predicate_picture(exhibit, Predicate("active", ("h1", 5))))  # row 1, column 1 of 4 x 4
    scale = image.shape[0] // 6
    rows, columns = np.nonzero(tinted(image))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (scale, 4 * scale - 1, scale, 4 * scale - 1)
