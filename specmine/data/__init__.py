"""Data sets: cards, loaders, splits and input domains."""

from specmine.data.cards import Card, card_names, check_known, model_path, read_card
from specmine.data.dataset import Dataset, check_against_model, from_arrays
from specmine.data.load import load_dataset
from specmine.data.npz import read_npz
from specmine.data.split import HOLDOUT, MINE, TEST

__all__ = [
    "HOLDOUT",
    "MINE",
    "TEST",
    "Card",
    "Dataset",
    "card_names",
    "check_against_model",
    "check_known",
    "from_arrays",
    "load_dataset",
    "model_path",
    "read_card",
    "read_npz",
]
