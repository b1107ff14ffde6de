"""A person's own npz files."""

import numpy as np
import pytest

from specmine.data import read_npz
from specmine.errors import BadData

X, Y = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1])


def test_round_trip(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, x=X, y=Y, lower=-1.0, upper=[10.0, 11.0], split=[0, 0, 1, 2], classes=["cat", "dog"])
    data = read_npz(path)
    assert data.name == "mine" and data.classes == ("cat", "dog") and data.split.tolist() == [0, 0, 1, 2]
    assert data.domain.lower.tolist() == [-1.0, -1.0] and data.domain.upper.tolist() == [10.0, 11.0]
    assert (data.x == X).all() and (data.y == Y).all()


def test_seed_decides_the_default_split(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((100, 1)), y=np.arange(100) % 2)
    assert (read_npz(path, seed=1).split == read_npz(path, seed=1).split).all()
    assert (read_npz(path, seed=1).split != read_npz(path, seed=2).split).any()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "holds the arrays x; it needs x, y"),
        ({"x": X, "y": Y, "weights": X}, "holds the arrays x, y, weights; it needs x, y and may hold lower"),
        ({"x": X, "y": Y, "classes": [[1.0]]}, "must be a list of names"),
        (
            {"x": X, "y": np.array([0, "a", None, 1], dtype=object)},
            r"holds Python objects in y, and objects are never.*dtype=int",
        ),
    ],
)
def test_wrong_arrays(tmp_path, arrays, message):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(BadData, match=message):
        read_npz(path)


def test_unreadable_files(tmp_path):
    good = tmp_path / "good.npz"
    np.savez_compressed(good, x=X, y=Y)
    cut, text, single = tmp_path / "cut.npz", tmp_path / "text.npz", tmp_path / "single.npy"
    cut.write_bytes(good.read_bytes()[:-40])
    text.write_text("x,y\n1,2\n")
    np.save(single, X)
    for path in (cut, text, tmp_path / "missing.npz"):
        with pytest.raises(BadData, match=r"cannot read data file .*np.savez") as caught:
            read_npz(path)
        assert "pickle" not in str(caught.value)
    with pytest.raises(BadData, match="is a single array"):
        read_npz(single)


def test_flipped_byte_in_compressed_data_is_refused(tmp_path):
    path = tmp_path / "flip.npz"
    np.savez_compressed(path, x=X, y=Y)
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(BadData):
        read_npz(path)
