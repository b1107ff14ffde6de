"""Predicates of attention heads: where a query looks, which pattern a head follows, what it writes to the output.

    attends(s,h,q,k)          score[h,q,k] >= score[h,q,j] for every key j that query q of head h sees
    prefers(s,h,q,k,j)        score[h,q,k] > score[h,q,j]
    focus(a,h,q,k,t)          probability[h,q,k] >= t
    previous_token(a,h,t)     the mean over queries q of probability[h,q,q-1] is >= t
    self_token(a,h,t)         ... of probability[h,q,q]
    first_token(a,h,t)        ... of probability[h,q,0], for q > 0
    duplicate_token(a,h,n,t)  ... of probability[h,q,q-n], which is the same token where sequences repeat after n tokens
    induction(a,h,n,t)        ... of probability[h,q,q-n+1], which came after that token, for q >= n
    writes(o,h,c,t)           what the outputs of head h add to y[c] along affine paths, less their mean over the last axis
                              of y, is >= t

Means leave out queries for which there is no such key, or whose mask hides it. Scores keep their order under softmax, so all
of these are linear in values that the network has.
"""

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from specmine.predicates.attention_heads import Part, known_layer, layer_of, no_layer, pattern, writing
from specmine.predicates.combination import tails
from specmine.predicates.exact import distinct, rows_at_least, weighted_at_least
from specmine.predicates.form import Bits, Columns, Family, Form, Kind, Measure, Plan, Rows, Spread
from specmine.predicates.predicate import Argument, Predicate
from specmine.tracing.attention import AttentionLayer
from specmine.tracing.sites import Sites
from verifier.formula import And, Formula, at_least, atom
from verifier.ops import Array

PATTERNS: dict[str, tuple[int | None, int]] = {"previous_token": (1, 1), "self_token": (0, 0), "first_token": (None, 1)}
"""How far before the query the key stands (None: it is the first), and the first query that counts."""

PERIODIC: dict[str, int] = {"duplicate_token": 0, "induction": 1}
"""How many tokens after the last occurrence of the query's token the key stands."""

MAX_WRITING = 1 << 24
"""Beyond so many weights from a layer's heads to the output no writing is proposed."""


def _attends(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    value, row, key = _row(arguments, sites)
    others = (int(entry) for entry in row if entry not in (-1, key))
    return And(tuple(atom({(value, other): 1, (value, key): -1}, 0) for other in others))


def _row(arguments: tuple[Argument, ...], sites: Sites) -> tuple[str, Rows, int]:
    """The value with the scores, the entries of the query's row, and that of the key."""
    layer = known_layer(sites, str(arguments[0]), "scores")
    head, query, key = (int(argument) for argument in arguments[1:4])
    return layer.scores, layer.score_index[head, query], int(layer.score_index[head, query, key])


def _attends_bits(arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    site, heads, queries, keys = arguments
    index = known_layer(sites, site, "scores").score_index
    (heads_of, queries_of), which = distinct(heads, queries)
    largest = np.stack([columns[site][row[row >= 0]].max(axis=0) for row in index[heads_of, queries_of]])
    return columns[site][index[heads, queries, keys]] >= largest[which]


def _prefers(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    value, row, key = _row(arguments, sites)
    other = int(row[int(arguments[4])])
    return atom({} if other == key else {(value, other): 1, (value, key): -1}, 0, strict=True)


def _prefers_bits(arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    site, heads, queries, keys, others = arguments
    index = known_layer(sites, site, "scores").score_index
    return columns[site][index[heads, queries, others]] < columns[site][index[heads, queries, keys]]


def _focus(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    site, head, query, key, threshold = arguments
    layer = known_layer(sites, str(site), "probabilities")
    entry = int(layer.probability_index[int(head), int(query), int(key)])
    return at_least(layer.probabilities, entry, float(threshold))


def _focus_bits(arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    site, heads, queries, keys, thresholds = arguments
    index = known_layer(sites, site, "probabilities").probability_index
    return rows_at_least(columns[site], index[heads, queries, keys], thresholds)


def _entries(layer: AttentionLayer, name: str, head: int, period: int) -> Rows:
    """The entries of a head that follow a pattern, one for each query that counts."""
    back, first = (period - PERIODIC[name], period) if name in PERIODIC else PATTERNS[name]
    entries = pattern(layer.probability_index, back, first)[head]
    return entries[entries >= 0]


def _mass(name: str, arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    layer = known_layer(sites, str(arguments[0]), "probabilities")
    entries = _entries(layer, name, int(arguments[1]), int(arguments[2]) if name in PERIODIC else 0)
    total = len(entries) * Fraction(arguments[-1])
    return atom({(layer.probabilities, int(entry)): -1 for entry in entries}, total)


def _mass_bits(name: str, arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    site, heads, *periods, thresholds = arguments
    layer = known_layer(sites, site, "probabilities")
    truth = []
    for place, (head, threshold) in enumerate(zip(heads.tolist(), thresholds.tolist(), strict=True)):
        entries = _entries(layer, name, head, int(periods[0][place]) if periods else 0)
        ones = np.ones(len(entries))
        truth.append(weighted_at_least(ones, columns[site][entries], len(entries) * Fraction(threshold)))
    return np.stack(truth)


def _writes(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    site, head, label, threshold = arguments
    entries, weights = _written(sites, str(site), int(head), int(label))
    value = sites.value(str(site))
    terms = {(value, entry): -weight for entry, weight in zip(entries.tolist(), weights.tolist(), strict=True)}
    return atom(terms, Fraction(float(threshold)))


def _writes_bits(arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    site, heads, labels, thresholds = arguments
    truth = []
    for head, label, threshold in zip(heads.tolist(), labels.tolist(), thresholds.tolist(), strict=True):
        entries, weights = _written(sites, site, head, label)
        truth.append(weighted_at_least(weights, columns[site][entries], Fraction(threshold)))
    return np.stack(truth)


def _written(sites: Sites, site: str, head: int, label: int) -> tuple[Rows, Array]:
    """The entries of a head's outputs and the weight of each in a logit less the mean."""
    layer = known_layer(sites, site, "outputs")
    lead, logit = divmod(label, sites.network.shapes[sites.network.output][-1])
    weights = writing(sites.network, layer.outputs, lead)
    assert weights is not None, f"no affine path leads from {site} to the output"
    entries = layer.output_index[head].reshape(-1)
    return entries, weights[logit, entries]


def _site(arguments: tuple[Argument, ...], sites: Sites) -> tuple[str, ...]:
    return (str(arguments[0]),)


def _check_keys(part: Part, arguments: tuple[Argument, ...], sites: Sites | None) -> str | None:
    """Head, query and the keys after it lie in range and are seen."""
    if sites is None:
        return None
    site, head, query, *rest = arguments
    layer = layer_of(sites, str(site), part)
    if layer is None:
        return no_layer(sites, str(site), part)
    index = layer.score_index if part == "scores" else layer.probability_index
    keys = [key for key in rest if isinstance(key, int)]
    named = [("heads", head), ("queries", query), *(("keys", key) for key in keys)]
    for word, number in named:
        length = index.shape[("heads", "queries", "keys").index(word)]
        if int(number) >= length:
            return f"{site} has {word} 0 to {length - 1}, got {number}"
    hidden = [key for key in keys if index[int(head), int(query), key] < 0]
    return f"a mask hides key {hidden[0]} from query {query} of head {head}; name one that it sees" if hidden else None


def _check_mass(name: str, arguments: tuple[Argument, ...], sites: Sites | None) -> str | None:
    period = int(arguments[2]) if name in PERIODIC else 0
    if name in PERIODIC and period < 1 + PERIODIC[name]:
        return f"a period is at least {1 + PERIODIC[name]} here, got {period}"
    if sites is None:
        return None
    site, head = str(arguments[0]), int(arguments[1])
    layer = layer_of(sites, site, "probabilities")
    if layer is None:
        return no_layer(sites, site, "probabilities")
    if head >= len(layer.probability_index):
        return f"{site} has heads 0 to {len(layer.probability_index) - 1}, got {head}"
    return None if len(_entries(layer, name, head, period)) else f"no query of head {head} of {site} sees such a key"


def _check_writes(arguments: tuple[Argument, ...], sites: Sites | None) -> str | None:
    if sites is None:
        return None
    site, head, label = str(arguments[0]), int(arguments[1]), int(arguments[2])
    layer = layer_of(sites, site, "outputs")
    if layer is None:
        return no_layer(sites, site, "outputs")
    if head >= len(layer.output_index):
        return f"{site} has heads 0 to {len(layer.output_index) - 1}, got {head}"
    lead = label // sites.network.shapes[sites.network.output][-1]
    none = writing(sites.network, layer.outputs, lead) is None
    return f"no affine path leads from {site} to the output, so what it writes is no linear form" if none else None


def _mass_form(name: str) -> Form:
    signature: tuple[Kind, ...] = ("site", "index", *(("index",) if name in PERIODIC else ()), "threshold")  # type: ignore[assignment]
    return Form(name, signature, partial(_mass, name), partial(_mass_bits, name), _site, partial(_check_mass, name))


_ENTRY: tuple[Kind, ...] = ("site", "index", "index", "index")

FORMS: dict[str, Form] = {
    "attends": Form("attends", _ENTRY, _attends, _attends_bits, _site, partial(_check_keys, "scores")),
    "prefers": Form("prefers", (*_ENTRY, "index"), _prefers, _prefers_bits, _site, partial(_check_keys, "scores")),
    "focus": Form("focus", (*_ENTRY, "threshold"), _focus, _focus_bits, _site, partial(_check_keys, "probabilities")),
    **{name: _mass_form(name) for name in (*PATTERNS, *PERIODIC)},
    "writes": Form("writes", ("site", "index", "class", "threshold"), _writes, _writes_bits, _site, _check_writes),
}


def _layers(plan: Plan) -> list[tuple[int, AttentionLayer]]:
    """The attention layers and their numbers: those with a site in the grid, all where it has none of them."""
    numbered = list(enumerate(plan.sites.attention, 1))
    named = [(k, layer) for k, layer in numbered if {f"s{k}", f"a{k}", f"o{k}"} & set(plan.grid.sites)]
    return named or numbered


def _seen(index: Rows) -> Rows:
    """Head, query and key (entries, 3) of what no mask hides."""
    return np.stack(np.nonzero(index >= 0), axis=1)


def _followed(layer: AttentionLayer) -> list[tuple[str, tuple[int, ...]]]:
    """Patterns that some query of a head can follow, with the arguments between site and threshold."""
    heads, queries, keys = layer.probability_index.shape
    if queries != keys:
        return []
    found: list[tuple[str, tuple[int, ...]]] = [(name, (head,)) for name in PATTERNS for head in range(heads)]
    for name, after in PERIODIC.items():
        found += [(name, (head, period)) for head in range(heads) for period in range(after + 2, queries)]
    return [(name, rest) for name, rest in found if len(_entries(layer, name, rest[0], rest[-1]))]


def _writers(plan: Plan, layer: AttentionLayer) -> list[tuple[int, int]]:
    """Head and logit of each direct contribution; none where there is no affine path, or the output is too large."""
    network = plan.sites.network
    labels = network.size(network.output)
    if labels * layer.output_index.size > MAX_WRITING or writing(network, layer.outputs, 0) is None:
        return []
    return [(head, label) for head in range(len(layer.output_index)) for label in range(labels)]


def _measures(plan: Plan) -> tuple[Measure, ...]:
    """For each layer its probabilities, the masses of its patterns, and what its heads write."""
    found = []
    for number, layer in _layers(plan):
        seen, followed, writers = _seen(layer.probability_index), _followed(layer), _writers(plan, layer)
        entries = layer.probability_index[tuple(seen.T)]
        sites = plan.sites
        masses = [_entries(layer, name, rest[0], rest[-1]) for name, rest in followed]
        written = [_written(sites, f"o{number}", head, label) for head, label in writers]
        found += [
            Measure((f"a{number}",), len(seen), partial(_focus_values, f"a{number}", entries)),
            Measure((f"a{number}",), len(masses), partial(_mass_values, f"a{number}", masses)),
            Measure((f"o{number}",), len(written), partial(_written_values, f"o{number}", written)),
        ]
    return tuple(found)


def _focus_values(site: str, entries: Rows, columns: Columns, rows: slice) -> Array:
    return columns[site][entries[rows]]


def _mass_values(site: str, masses: list[Rows], columns: Columns, rows: slice) -> Array:
    values = [columns[site][entries].mean(axis=0) for entries in masses[rows]]
    return np.stack(values) if values else np.zeros((0, columns[site].shape[1]))


def _written_values(site: str, written: list[tuple[Rows, Array]], columns: Columns, rows: slice) -> Array:
    values = [weights @ columns[site][entries] for entries, weights in written[rows]]
    return np.stack(values) if values else np.zeros((0, columns[site].shape[1]))


def _candidates(plan: Plan, spreads: tuple[Spread, ...]) -> Iterator[Predicate]:
    for place, (number, layer) in enumerate(_layers(plan)):
        focus, masses, written = spreads[3 * place : 3 * place + 3]
        yield from _looks(f"s{number}", layer, max(1, plan.grid.partners // 4))
        named: list[tuple[Spread, list[tuple[str, tuple[Any, ...]]], int]] = [
            (focus, [("focus", (f"a{number}", *entry)) for entry in _seen(layer.probability_index).tolist()], 4),
            (masses, [(name, (f"a{number}", *rest)) for name, rest in _followed(layer)], 1),
            (written, [("writes", (f"o{number}", *writer)) for writer in _writers(plan, layer)], 4),
        ]
        for spread, forms, share in named:
            for row, (name, arguments) in enumerate(forms):
                above, _ = tails(spread, row, plan.grid, share)
                yield from (Predicate(name, (*arguments, threshold)) for threshold in above)


def _looks(site: str, layer: AttentionLayer, partners: int) -> Iterator[Predicate]:
    """For each key that a query sees: that it gets the largest score, and more than each of the next keys of the row."""
    for head, row in enumerate(layer.score_index):
        for query, entries in enumerate(row):
            keys = np.flatnonzero(entries >= 0).tolist()
            for place, key in enumerate(keys if len(keys) > 1 else ()):
                yield Predicate("attends", (site, head, query, key))
                for other in keys[place + 1 : place + 1 + partners]:
                    yield Predicate("prefers", (site, head, query, key, other))
                    yield Predicate("prefers", (site, head, query, other, key))


ATTENTION = Family("attention", FORMS, _candidates, _measures)
