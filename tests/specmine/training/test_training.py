"""Training: what it reaches, that it repeats, and that the ONNX file computes the same."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from specmine.data import from_arrays, load_dataset, model_path
from specmine.errors import BadConfig, BadModel, BadRun
from specmine.tracing import compare_with_original
from specmine.training import TECHNIQUES, Affine, accuracy, conv_net, mlp, standardise, train, write_onnx
from verifier.formats.onnx import read_onnx


@pytest.fixture(scope="module")
def iris():
    return load_dataset("iris")


@pytest.fixture(scope="module")
def trained(iris):
    return train(iris, hidden=(16, 16), seed=3)


def run(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"x": row[None].astype(np.float32)})[0] for row in x])


def weights(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def test_learns(iris, trained):
    assert accuracy(trained, *iris.test) >= 0.9 and not trained.training


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_same_seed_same_network_and_no_global_state(iris, technique):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two, other = (train(iris, technique=technique, hidden=(4,), epochs=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_learns_from_the_mining_split_alone(iris):
    changed = iris.x.copy()
    changed[iris.split != 0] = iris.domain.lower
    other = from_arrays(changed, iris.y, lower=iris.domain.lower, upper=iris.domain.upper, split=iris.split)
    one, two = (train(data, hidden=(4,), epochs=2) for data in (iris, other))
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))


def test_kept_digits_model_is_what_its_recipe_makes():
    digits, threads = load_dataset("digits"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module = train(digits, hidden=(32, 32), epochs=60, seed=0)
    finally:
        torch.set_num_threads(threads)
    kept = run(model_path("digits"), digits.test[0]).argmax(axis=1)
    assert (kept == digits.test[1]).mean() == pytest.approx(0.972, abs=0.001)
    assert accuracy(module, *digits.test) == pytest.approx(0.972, abs=0.015)
    assert accuracy(module, digits.test[0], kept) >= 0.96


def test_kept_digits_model_reads_as_a_network_of_site_names():
    digits = load_dataset("digits")
    network = read_onnx(model_path("digits"))
    assert {"x", "z1", "h1", "z2", "h2", "y"} <= set(network.shapes) and network.input_shape == (1, 64)
    assert compare_with_original(network, model_path("digits"), digits.x) < 1e-4


def test_scaling_maps_the_box_to_the_unit_box():
    layer = standardise(np.array([0.0, -2.0, 3.0]), np.array([16.0, 2.0, 3.0]))
    corners = torch.tensor([[0.0, -2.0, 3.0], [16.0, 2.0, 3.0]])
    assert layer(corners).tolist() == [[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    assert not list(layer.parameters())


def test_bad_options(iris):
    with pytest.raises(BadConfig, match="no training technique 'standart'; nearest are standard"):
        train(iris, technique="standart")
    for options in ({"epochs": -1}, {"batch": 0}, {"hidden": (3, 0)}):
        with pytest.raises(BadConfig, match="epochs >= 0, batch >= 1 and widths >= 1"):
            train(iris, **options)


def awkward():
    torch.manual_seed(0)
    layers = (Affine(np.full(2, 0.5), np.ones(2)), nn.Linear(2, 3, bias=False), nn.Linear(3, 3), nn.ReLU(), nn.Dropout())
    return nn.Sequential(*layers, nn.Linear(3, 2), nn.ReLU(), nn.Identity()).eval()


MODULES = {
    "mlp": lambda: mlp(5, (4, 3), 2),
    "scaled": lambda: mlp(2, (4,), 3, scaling=standardise(np.array([1.0, 0.0]), np.array([3.0, 16.0]))),
    "conv": lambda: conv_net((6, 6), (2, 3), (5,), 4, scaling=standardise(np.zeros(36), np.full(36, 16.0))),
    "planes": lambda: conv_net((2, 5, 4), (3,), (), 2),
    "awkward": awkward,
}
INPUTS = {"mlp": 5, "scaled": 2, "conv": 36, "planes": 40, "awkward": 2}


@pytest.mark.parametrize("name", MODULES)
def test_onnx_file_computes_what_the_module_computes(name, tmp_path):
    torch.manual_seed(1)
    module = MODULES[name]()
    x = torch.randn(10, INPUTS[name])
    path = tmp_path / "net.onnx"
    write_onnx(module, x[:1], path)
    with torch.no_grad():
        assert np.allclose(run(path, x.numpy()), module(x).numpy(), rtol=1e-5, atol=1e-6)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert compare_with_original(read_onnx(path), module, x.double().numpy()) < 1e-5


def test_onnx_file_is_the_same_bytes_each_time(trained, tmp_path):
    for name in ("a.onnx", "b.onnx"):
        write_onnx(trained, torch.zeros(1, 4), tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Sigmoid()), "layer 1 is a Sigmoid; write_onnx knows Affine, Linear"),
        (nn.Sequential(nn.Identity()), "must end in a layer that computes its outputs"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(2, 2)), "flattening must keep only the batch axis"),
        (
            nn.Sequential(nn.Unflatten(1, (1, 1, 2)), nn.MaxPool2d(1, padding=0, ceil_mode=True)),
            "without padding, dilation and ceil",
        ),
        (nn.Sequential(nn.Conv2d(1, 1, 1, padding_mode="reflect")), "must have zero padding"),
    ],
)
def test_layers_that_cannot_be_written(module, message, tmp_path):
    with pytest.raises(BadModel, match=message):
        write_onnx(module, torch.zeros(1, 2), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_written(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRun, match="cannot write"):
        write_onnx(trained, torch.zeros(1, 4), tmp_path / "file" / "net.onnx")


def test_convolutions_on_images_alone(iris, tmp_path):
    digits = load_dataset("digits")
    module = train(digits, hidden=(16,), channels=(8, 8), epochs=20, seed=0)
    assert [type(layer).__name__ for layer in module].count("Conv2d") == 2
    assert accuracy(module, *digits.test) > 0.7
    write_onnx(module, torch.zeros(1, digits.domain.size), tmp_path / "net.onnx")
    x = digits.test[0].reshape(len(digits.test[0]), -1)[:20]
    with torch.no_grad():
        expected = module(torch.from_numpy(x.astype(np.float32))).numpy()
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x), expected, atol=1e-4)
    with pytest.raises(BadConfig, match="channels are for images"):
        train(iris, channels=(4,))
    with pytest.raises(BadConfig, match="too small for 4 poolings"):
        train(digits, channels=(2, 2, 2, 2))
