"""Traces: the values of the network on the samples, its predictions, and its comparison with the original."""

import gzip

import numpy as np
import pytest
import torch

import specmine.tracing.original
from specmine.errors import BadClause, BadData, BadModel
from specmine.tracing import Sites, column, compare_with_original, predict, select_samples, trace
from specmine.training import mlp, write_onnx
from verifier.network import Network, Node
from verifier.ops import Linear, Relu

WEIGHT = np.array([[1.0, -1.0], [2.0, 0.5]])
OUT = np.array([[1.0, 0.0], [0.0, 1.0]])


def network(out=OUT) -> Network:
    return Network(
        "x",
        (1, 2),
        (
            Node("z1", Linear(WEIGHT, np.array([0.0, -1.0])), ("x",)),
            Node("h1", Relu(), ("z1",)),
            Node("y", Linear(out, np.zeros(2)), ("h1",)),
        ),
        "y",
    )


def test_by_hand():
    made = trace(Sites(network()), [[1.0, 2.0], [3.0, 1.0], [0.0, 0.0]], keep=("z1", "h1", "y"))
    assert made.values["z1"].tolist() == [[-1.0, 2.0], [2.0, 5.5], [0.0, -1.0]]
    assert made.values["h1"].tolist() == [[0.0, 2.0], [2.0, 5.5], [0.0, 0.0]]
    assert made.predictions.tolist() == [1, 1, -1] and made.samples == 3


def test_keeps_hidden_sites_and_the_output_by_default():
    made = trace(Sites(network()), [[1.0, 2.0]])
    assert set(made.values) == {"h1", "y"}
    assert not made.values["h1"].flags.writeable and not made.predictions.flags.writeable


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_batches_give_the_values_of_one_run(batch):
    x = np.random.default_rng(0).normal(size=(50, 2))
    whole, parts = trace(Sites(network()), x), trace(Sites(network()), x, batch=batch)
    assert all(np.allclose(whole.values[site], parts.values[site], rtol=1e-14, atol=0) for site in whole.values)


def test_samples_of_any_shape_of_the_right_size():
    flat = trace(Sites(network()), [[1.0, 2.0]]).values["h1"]
    assert (trace(Sites(network()), [[[1.0], [2.0]]]).values["h1"] == flat).all()


def test_select_samples():
    made = trace(Sites(network()), [[1.0, 2.0], [3.0, 1.0], [0.0, 0.0]])
    part = select_samples(made, np.array([True, False, True]))
    assert part.predictions.tolist() == [1, -1] and part.values["h1"].tolist() == [[0.0, 2.0], [0.0, 0.0]]


def test_ties_have_no_class():
    assert predict(np.array([[1.0, 2.0, 2.0], [3.0, 0.0, 1.0], [0.0, 0.0, 0.0]])).tolist() == [-1, 0, -1]
    assert predict(np.array([[5.0]])).tolist() == [0]


class Recorder:
    def __init__(self):
        self.steps, self.total = 0, None

    def start(self, stage, total=None):
        self.total = total

    def advance(self, steps=1, text=""):
        self.steps += steps

    def finish(self, text=""):
        self.steps = -self.steps


def test_progress_counts_samples():
    seen = Recorder()
    trace(Sites(network()), np.zeros((10, 2)), batch=4, progress=seen)
    assert (seen.total, seen.steps) == (10, -10)


@pytest.mark.parametrize("samples", [np.zeros((3, 3)), np.zeros(2), np.zeros((0, 2))])
def test_samples_that_do_not_fit(samples):
    with pytest.raises(BadData, match=r"2 numbers each for input 'x' of shape \(1, 2\), got"):
        trace(Sites(network()), samples)


def test_samples_that_are_not_finite():
    with pytest.raises(BadData, match="must be finite"):
        trace(Sites(network()), [[np.nan, 0.0]])


def test_network_that_overflows():
    with pytest.raises(BadModel, match="value 'y' on sample 1 is not finite"):
        trace(Sites(network(OUT * 1e300)), [[0.0, 0.0], [1e10, 0.0]])


def test_site_that_was_not_kept():
    made = trace(Sites(network()), [[1.0, 2.0]])
    with pytest.raises(BadClause, match="site 'z1' is not in this trace, which has h1, y"):
        column(made, "z1")
    with pytest.raises(BadClause, match="no site 'h7' in this network"):
        trace(Sites(network()), [[1.0, 2.0]], keep=["h7"])


@pytest.fixture
def module():
    torch.manual_seed(0)
    return mlp(2, (3,), 2)


def read(module) -> Network:
    """The network of a 2-3-2 module, by hand."""
    first, _, last = module
    weight, bias, out, end = (t.detach().double().numpy() for t in (first.weight, first.bias, last.weight, last.bias))
    nodes = (Node("z", Linear(weight, bias), ("x",)), Node("h", Relu(), ("z",)), Node("o", Linear(out, end), ("h",)))
    return Network("x", (1, 2), nodes, "o")


SAMPLES = np.random.default_rng(1).normal(size=(20, 2))


@pytest.mark.parametrize("reader", ["onnxruntime", "reference", "module"])
def test_original_agrees(module, reader, tmp_path, monkeypatch):
    if reader == "reference":
        monkeypatch.setattr(specmine.tracing.original, "onnxruntime", None)
    original = module if reader == "module" else tmp_path / "net.onnx"
    if reader != "module":
        write_onnx(module, torch.zeros(1, 2), original)
    assert compare_with_original(read(module), original, SAMPLES) < 1e-6


@pytest.mark.parametrize("reader", ["onnxruntime", "reference"])
def test_original_in_a_packed_file(module, reader, tmp_path, monkeypatch):
    if reader == "reference":
        monkeypatch.setattr(specmine.tracing.original, "onnxruntime", None)
    write_onnx(module, torch.zeros(1, 2), tmp_path / "net.onnx")
    packed = tmp_path / "net.onnx.gz"
    packed.write_bytes(gzip.compress((tmp_path / "net.onnx").read_bytes()))
    assert compare_with_original(read(module), packed, SAMPLES) < 1e-6


@pytest.mark.parametrize("reader", ["onnxruntime", "reference", "module"])
def test_original_that_computes_something_else(module, reader, tmp_path, monkeypatch):
    if reader == "reference":
        monkeypatch.setattr(specmine.tracing.original, "onnxruntime", None)
    wrong = read(module)
    with torch.no_grad():
        module[-1].bias[1] += 0.01
    original = module if reader == "module" else tmp_path / "net.onnx"
    if reader != "module":
        write_onnx(module, torch.zeros(1, 2), original)
    with pytest.raises(BadModel, match=r"where its original computes .* at output 1 of sample"):
        compare_with_original(wrong, original, SAMPLES)


def test_module_is_compared_in_evaluation_mode_and_left_as_it_was(module):
    with_dropout = torch.nn.Sequential(*module, torch.nn.Dropout(0.9)).train()
    module[1].eval()
    assert compare_with_original(read(module), with_dropout, SAMPLES) < 1e-6
    assert with_dropout.training and with_dropout[-1].training and not module[1].training


def test_original_that_cannot_be_run(module, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(BadModel, match=r"cannot run .*net.onnx"):
        compare_with_original(read(module), path, SAMPLES)


def test_original_with_another_number_of_outputs(module):
    with pytest.raises(BadModel, match="the network has 2 outputs but its original has 3"):
        compare_with_original(read(module), mlp(2, (3,), 3), SAMPLES)
