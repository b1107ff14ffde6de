"""The data sets of the cards."""

import gzip
import os
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from specmine.data import card_names, load_dataset, model_path, read_card
from specmine.data.cards import cards_folder
from specmine.data.idx import parse_idx, scale_pixels
from specmine.errors import BadData

ROOT = Path(__file__).resolve().parents[3]
MNIST = Path(os.environ.get("SPECMINE_BENCHMARKS", ROOT.parent / "shared" / "benchmarks")) / "mnist"
SMALL = ["breast_cancer", "digits", "iris", "wine"]
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason=f"the benchmark folder has no {MNIST}")


def test_cards_are_complete():
    assert card_names() == ("breast_cancer", "digits", "iris", "mnist", "wine")
    for name in card_names():
        card = read_card(name)
        assert card.name == name and card.licence and card.source.startswith("https://")
        assert card.split.mine + card.split.holdout + card.split.test == card.samples
        assert (cards_folder() / name / "CARD.md").read_text().startswith(f"# {name}\n")


@pytest.mark.parametrize("name", SMALL)
def test_small_data_sets_are_what_their_cards_say(name):
    data, card = load_dataset(name), read_card(name)
    assert data.x.shape == (card.samples, *card.shape) and data.sha256 == card.sha256
    assert np.bincount(data.split).tolist() == [card.split.mine, card.split.holdout, card.split.test]
    assert (data.x >= data.domain.lower).all() and (data.x <= data.domain.upper).all()
    assert data.domain_source == "card" and data.classes == card.classes and data.image_shape == card.image_shape


def test_digits_domain_is_the_pixel_range():
    data = load_dataset("digits")
    assert data.domain.lower.tolist() == [0.0] * 64 and data.domain.upper.tolist() == [16.0] * 64


def test_model_of_digits_is_there():
    assert model_path("digits").is_file() and model_path("iris") is None


def test_unknown_name_offers_the_nearest():
    with pytest.raises(BadData, match=r"no data set 'digit'; nearest are digits.*; known are breast_cancer, digits"):
        load_dataset("digit")


def test_changed_content_is_refused(monkeypatch):
    changed = read_card("iris").model_copy(update={"sha256": "0" * 64})
    monkeypatch.setattr("specmine.data.load.read_card", lambda name: changed)
    with pytest.raises(BadData, match="but its card says 0000"):
        load_dataset("iris")


def test_mnist_without_files_says_which_and_where(tmp_path, monkeypatch):
    monkeypatch.delenv("SPECMINE_DATA", raising=False)
    with pytest.raises(BadData, match=r"needs the files train-images-idx3-ubyte, .* no folder was given; .*SPECMINE_DATA"):
        load_dataset("mnist")
    with pytest.raises(BadData, match="they are not in"):
        load_dataset("mnist", data_dir=tmp_path)


@needs_mnist
def test_wrong_mnist_file_is_refused(tmp_path, monkeypatch):
    for path in MNIST.glob("*.gz"):
        shutil.copyfile(path, tmp_path / path.name)
    images = tmp_path / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(images.read_bytes()))
    content[100] ^= 1
    images.write_bytes(gzip.compress(bytes(content)))
    monkeypatch.setenv("SPECMINE_DATA", str(tmp_path))
    with pytest.raises(BadData, match=r"t10k-labels-idx1-ubyte.gz has sha256 .* but the card says ff7bcfd4"):
        load_dataset("mnist")
    images.write_bytes(images.read_bytes()[:50])
    with pytest.raises(BadData, match=r"cannot read .*t10k-labels"):
        load_dataset("mnist")


@needs_mnist
def test_mnist_against_the_pixels_of_another_source():
    data = load_dataset("mnist", data_dir=MNIST.parent)
    assert data.x.shape == (70000, 784) and data.image_shape == (28, 28)
    assert (np.diff(data.split) >= 0).all() and np.bincount(data.split).tolist() == [50000, 10000, 10000]
    known = np.loadtxt(MNIST / "mnist_test_first100.csv", delimiter=",", dtype=np.int64)
    x, y = data.test
    assert (y[:100] == known[:, 0]).all()
    assert (x[:100] == scale_pixels(known[:, 1:].astype(np.uint8))).all()


@needs_mnist
def test_fetch_checks_and_copies(tmp_path):
    fetch = runpy.run_path(str(cards_folder() / "mnist" / "fetch.py"))["fetch"]
    assert {path.name for path in fetch(MNIST, tmp_path / "to")} == {path.name for path in MNIST.glob("*.gz")}
    with pytest.raises(BadData, match="needs the files"):
        fetch(tmp_path, tmp_path / "to")


def test_pixels_are_float32_quotients():
    levels = scale_pixels(np.arange(256, dtype=np.uint8))
    assert (levels.astype(np.float32) == levels).all() and levels[0] == 0 and levels[255] == 1
    assert (levels == (np.arange(256) / 255).astype(np.float32)).all()


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x08\x01\x00\x00\x00\x05ab", b"\x00\x00\x0d\x01\x00\x00\x00\x01a"])
def test_broken_idx(content):
    with pytest.raises(BadData, match="labels is not an idx file"):
        parse_idx(content, "labels")
