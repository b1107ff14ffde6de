"""Engines on another device than the processor: the same code there, nothing of theirs left behind here, the same answers."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from elsewhere import NAME
from laws.queries import random_query
from laws.turns import begin, decided, decided_elsewhere, mixed

from verifier.device import PROCESSOR, computing_on, random_integers, random_like, tensor_of
from verifier.errors import BadQuery
from verifier.formula import TRUE
from verifier.query import Query
from verifier.solve import verify

CASES = [
    ("deep", 0, "attack"),
    ("gelu", 0, "attack"),
    ("conv2d", 3, "attack"),
    ("deep", 0, "bound"),
    ("softmax", 1, "bound"),
    ("deep", 1, "boxes"),
    ("leaky", 0, "boxes"),
    ("sigmoids", 0, "boxes"),
    ("deep", 1, "split"),
    ("normalised", 0, "split"),
    ("max_pool", 5, "split"),
    ("mlp", 10, "planes"),
    ("residual", 5, "programs"),
    ("deep", 1, "lemmas"),
]


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """A process of its own: torch counts its devices once, before the first gradient."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=begin) as pool:
        yield pool


def test_the_second_device_refuses_what_an_accelerator_would(elsewhere: ProcessPoolExecutor) -> None:
    apart, indexed, memory = elsewhere.submit(mixed).result()
    assert "expected all tensors to be on the same device" in apart
    assert "indices should be" in indexed
    assert "can't convert elsewhere:0" in memory


@pytest.mark.parametrize(("kind", "seed", "turns"), CASES)
def test_engines_find_the_same_on_another_device(elsewhere: ProcessPoolExecutor, kind: str, seed: int, turns: str) -> None:
    there = elsewhere.submit(decided_elsewhere, kind, seed, turns).result()
    assert there == decided(kind, seed, turns, "cpu")


@pytest.mark.parametrize("name", ["cuda:99", "meta", NAME, "no such", ""])
def test_a_device_that_cannot_be_used_is_refused(name: str) -> None:
    query = random_query("mlp", seed=0)
    with pytest.raises(BadQuery, match=rf"cannot compute on device '{name}': .+; choose cpu"):
        verify(query, device=name)


def test_a_default_device_of_the_caller_is_left_as_it_is() -> None:
    with torch.device("meta"):
        decision = verify(Query((query := random_query("mlp", seed=0)).network, query.region, TRUE), engine="falsify")
        assert torch.get_default_device() == torch.device("meta")
    assert type(decision.verdict).__name__ == "Refuted"


def test_random_numbers_are_the_same_wherever_they_go() -> None:
    first, again = (torch.Generator().manual_seed(3) for _ in range(2))
    like = torch.zeros(2, dtype=torch.float64)
    assert torch.equal(random_like(like, (4, 5), first), torch.rand((4, 5), generator=again, dtype=torch.float64))
    assert torch.equal(random_integers(2, 9, (6,), first), torch.randint(2, 9, (6,), generator=again))


def test_full_precision_lasts_as_long_as_the_work() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with computing_on(torch.device("meta")):
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
        with computing_on(PROCESSOR):
            assert tensor_of(np.ones(2)).device == PROCESSOR
    finally:
        torch.set_float32_matmul_precision(before)
