"""Pictures of predicates: what of the image a neuron looks at, or the attention of a head, the predicate's entries marked."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from specmine.exhibit import Exhibit
from specmine.predicates.families import bits, denote, form_of
from specmine.predicates.predicate import Predicate
from specmine.report.figures import attention_map, picture, window_picture
from specmine.tracing import AttentionLayer, part_of, traced
from verifier.evaluate import forward
from verifier.formula import atoms_of
from verifier.ops import Array

LOOKED_AT = 256
"""How many test samples a picture is made from."""


def predicate_picture(exhibit: Exhibit, predicate: Predicate) -> str | None:
    """A data URI of a picture of a predicate; None where neither the input is an image nor the predicate about attention."""
    rows = np.array(exhibit.test_rows[:LOOKED_AT], dtype=np.int64)
    if not len(rows):
        return None
    named = {term.value for atom in atoms_of(denote(predicate, exhibit.sites)) for term in atom.terms}
    for number, layer in enumerate(exhibit.sites.attention, 1):
        if named & {layer.scores, layer.probabilities}:
            return _attention_picture(exhibit, predicate, layer, f"a{number}", rows)
    if exhibit.dataset.image_shape is None:
        return None
    return _window(exhibit, predicate, rows)


def _window(exhibit: Exhibit, predicate: Predicate, rows: NDArray[np.int64]) -> str:
    """The mean image where the predicate holds, tinted where its values react to a pixel, framed around all of these."""
    dataset, shape = exhibit.dataset, exhibit.dataset.image_shape or ()
    sites = form_of(predicate).sites(predicate.arguments, exhibit.sites)
    held = bits(predicate, traced(part_of(exhibit.source, rows), sites))
    chosen = rows[held] if held.any() else rows
    x = np.asarray(dataset.x[chosen], dtype=np.float64).reshape(len(chosen), -1)
    mean = picture(x.mean(axis=0), shape, float(dataset.domain.lower.min()), float(dataset.domain.upper.max()))
    reaction = _reaction(exhibit, predicate, x)
    planes = reaction.reshape(shape)
    return window_picture(mean, planes.sum(axis=0) if planes.ndim == 3 else planes)


def _reaction(exhibit: Exhibit, predicate: Predicate, x: Array) -> Array:
    """The mean absolute derivative (inputs,) of the sum of the predicate's terms, over samples (samples, inputs)."""
    network = exhibit.sites.network
    terms = [term for atom in atoms_of(denote(predicate, exhibit.sites)) for term in atom.terms]
    points = torch.from_numpy(x.copy()).requires_grad_()
    values = forward(network, points, keep={term.value for term in terms})
    total = sum(float(t.coefficient) * values[t.value].flatten(1)[:, t.index].sum() for t in terms)
    if not isinstance(total, torch.Tensor) or not total.requires_grad:
        return np.zeros(x.shape[1])
    (slope,) = torch.autograd.grad(total, points)
    return slope.abs().mean(dim=0).numpy()


def _attention_picture(
    exhibit: Exhibit, predicate: Predicate, layer: AttentionLayer, site: str, rows: NDArray[np.int64]
) -> str:
    """The mean probabilities of the predicate's head, its entries outlined."""
    values = traced(part_of(exhibit.source, rows), [site]).values[site]
    places = {layer.scores: layer.score_index, layer.probabilities: layer.probability_index}
    terms = [t for atom in atoms_of(denote(predicate, exhibit.sites)) for t in atom.terms if t.value in places]
    marked = [entry for t in terms for entry in np.argwhere(places[t.value] == t.index).tolist()]
    head = marked[0][0] if marked else 0
    index = layer.probability_index[head]
    mean = np.where(index >= 0, values.mean(axis=0)[np.maximum(index, 0)], 0.0)
    return attention_map(mean, _entries(marked, head))


def _entries(marked: Sequence[Sequence[int]], head: int) -> list[tuple[int, int]]:
    return sorted({(query, key) for at, query, key in marked if at == head})
