"""The proved clauses as constrained Horn clauses, one SMT-LIB file that Z3's Spacer answers.

Of a small network: the values of each layer that a clause speaks of are the arguments of a relation `at`, reached from the
layer before by the network's own arithmetic; each literal is a relation over such values, given wherever the literal holds
and derived wherever a clause says so. A derived literal that does not hold is a violation. `sat` (Spacer finds what each
relation means) says that none is reachable from any input, `unsat` that one is.

Of a larger network: literals are relations over sample numbers, given by test samples, and a violation is a class that is
derived of a sample to which the network gives another; a second file asks for the derivation of one sample's class.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from specmine.exhibit import Exhibit
from specmine.export.header import run_lines
from specmine.folder import write_text
from specmine.predicates.families import denote
from specmine.predicates.predicate import Predicate
from specmine.rules.clause import HornClause
from specmine.rules.theory import Theory, chain
from specmine.stats import body_bits
from specmine.tracing import Sites, part_of
from verifier.errors import UnsupportedOp
from verifier.formats.smtlib import linear_form, rational
from verifier.formula import Atom, Formula, Or, atoms_of
from verifier.network import Network, Node, mask_nodes
from verifier.ops import LINEAR_OPS, Relu
from verifier.region import Box, exact_bounds

MAX_ENTRIES, MAX_WEIGHTS = 120, 4000
"""Sizes up to which a network itself is written: entries of all its values, and weights."""

MAX_SAMPLES = 200

EXACT = (
    "question: is some derived literal wrong for some input of the region? The network is part of the question.",
    "sat: no, every clause holds over the whole region; unsat: yes",
)
SAMPLES = (
    "question: is a class derived for one of the samples below to which the network gives another?",
    "sat: no; unsat: yes. The network is too large to be written, so the clauses are taken as they are",
)
DERIVABLE = ("question: is {goal} derived for sample {sample}?", "unsat: yes, and the refutation is the derivation; sat: no")


def export_chc(exhibit: Exhibit, folder: Path) -> list[Path]:
    """Writes theory.smt2, and derivation.smt2 where the network is too large for the exact question and a class is derived.

    In them are the clauses that are proved over the whole domain, without those composed of others.
    """
    theory = exhibit.longest
    header = [*run_lines(exhibit.spec), *(f"clause {clause.id}: {clause}" for clause in theory.clauses)]
    path = folder / "theory.smt2"
    try:
        text = chc(theory, exhibit.sites, exhibit.dataset.domain, header=header)
    except UnsupportedOp as error:
        return list(_of_samples(exhibit, theory, [*header, str(error)], folder))
    write_text(path, text)
    return [path]


def chc(theory: Theory, sites: Sites, region: Box, *, header: Sequence[str] = ()) -> str:
    """The clauses of a theory and the network over a region as a script with one `(check-sat)`.

    Raises UnsupportedOp where the network is too large, has operators other than linear ones and ReLU, or a literal speaks of a
    value that some way through the network avoids.
    """
    model = _Model(theory, sites, region)
    return _script(header, EXACT, model.declarations, model.rules)


def _script(header: Sequence[str], question: Sequence[str], declarations: Iterable[str], rules: Iterable[str]) -> str:
    comments = [f"; {line}".rstrip() for line in (*header, *question)]
    return "\n".join([*comments, "(set-logic HORN)", *declarations, *rules, "(check-sat)", ""])


@dataclass(frozen=True, eq=False)
class _Model:
    """The exact question. layers: the values, in network order, that clauses name, and the input."""

    theory: Theory
    sites: Sites
    region: Box

    def __post_init__(self) -> None:
        network = self.network
        weights = sum(node.op.weight.size for node in network.nodes if hasattr(node.op, "weight"))
        entries = sum(network.size(name) for name in network.shapes)
        if entries > MAX_ENTRIES or weights > MAX_WEIGHTS:
            raise UnsupportedOp("network", network.output, f"it has {entries} entries and {weights} weights")
        for node in network.nodes:
            if not isinstance(node.op, (*LINEAR_OPS, Relu)):
                raise UnsupportedOp(type(node.op).__name__, node.output, "only linear operators and ReLU are written")
        for node in mask_nodes(network):
            raise UnsupportedOp("Scale", node.output, "it holds only where values are small against a mask")
        for layer in self.layers:
            if not _cuts(network, layer):
                raise UnsupportedOp("network", layer, "what follows does not come from this value alone")

    @property
    def network(self) -> Network:
        return self.sites.network

    @cached_property
    def formulas(self) -> dict[Predicate, Formula]:
        return {literal: denote(literal, self.sites) for literal in self.theory.predicates}

    @cached_property
    def layers(self) -> tuple[str, ...]:
        named = {term.value for formula in self.formulas.values() for atom in atoms_of(formula) for term in atom.terms}
        return tuple(name for name in self.network.shapes if name in named or name == self.network.input)

    def read(self, literals: Iterable[Predicate]) -> list[str]:
        """The layers that literals speak of, in network order; the input where they speak of none."""
        named = {t.value for literal in literals for atom in atoms_of(self.formulas[literal]) for t in atom.terms}
        return [layer for layer in self.layers if layer in named] or [self.network.input]

    @property
    def declarations(self) -> Iterator[str]:
        for layer in self.layers:
            yield f"(declare-fun {_at(layer)} ({self._sorts([layer])}) Bool)"
        for literal in self.theory.predicates:
            yield f"(declare-fun {_name(literal)} ({self._sorts(self.read([literal]))}) Bool)"

    def _sorts(self, layers: Sequence[str]) -> str:
        return " ".join("Real" for layer in layers for _ in range(self.network.size(layer)))

    @property
    def rules(self) -> Iterator[str]:
        yield "; the region, and the network from layer to layer"
        entry = self.network.input
        lower, upper = exact_bounds(self.region)
        sides = (
            f"(<= {rational(a)} {_entry(entry, i)} {rational(b)})" for i, (a, b) in enumerate(zip(lower, upper, strict=True))
        )
        yield self._rule([entry], list(sides), self._apply(_at(entry), [entry]))
        for first, second in pairwise(self.layers):
            yield self._rule(*self._way([first, second]), self._apply(_at(second), [second]))
        yield "; a literal is given wherever it holds, and wrong where it is derived and does not"
        for literal, formula in self.formulas.items():
            layers = self.read([literal])
            names, parts = self._way(layers)
            relation = self._apply(_name(literal), layers)
            yield self._rule(names, [*parts, _formula(formula)], relation)
            yield self._rule(names, [relation, f"(not {_formula(formula)})"], "false")
        yield "; the clauses"
        for clause in self.theory.clauses:
            yield self._clause(clause)

    def _clause(self, clause: HornClause) -> str:
        head = () if clause.head is None else (clause.head,)
        names, parts = self._way(self.read([*clause.body, *head]))
        body = [self._apply(_name(literal), self.read([literal])) for literal in clause.body]
        goal = "false" if clause.head is None else self._apply(_name(clause.head), self.read(head))
        return self._rule(names, [*parts, *body], goal)

    def _way(self, layers: Sequence[str]) -> tuple[list[str], list[str]]:
        """From the first of the layers to the last: the values on the way, and what ties them together."""
        names, parts = [layers[0]], [self._apply(_at(layers[0]), [layers[0]])]
        known = {layers[0]}
        if len(layers) > 1:
            for node in _between(self.network, layers[0], layers[-1]):
                known.add(node.output)
                names.append(node.output)
                parts += [self._step(node, index) for index in range(self.network.size(node.output))]
        return names, parts

    def _step(self, node: Node, index: int) -> str:
        left = _entry(node.output, index)
        if isinstance(node.op, Relu):
            z = _entry(node.inputs[0], index)
            return f"(= {left} (ite (>= {z} 0) {z} 0))"
        terms, bias = linear_form(self.network, node, index)
        parts = [f"(* {rational(c)} {_entry(*entry)})" for entry, c in terms.items()]
        return f"(= {left} (+ {' '.join([*parts, rational(bias)])} 0))"

    def _apply(self, relation: str, layers: Sequence[str]) -> str:
        entries = [_entry(layer, index) for layer in layers for index in range(self.network.size(layer))]
        return f"({relation} {' '.join(entries)})"

    def _rule(self, names: Sequence[str], parts: Sequence[str], goal: str) -> str:
        entries = (_entry(name, index) for name in names for index in range(self.network.size(name)))
        variables = " ".join(f"({entry} Real)" for entry in entries)
        return f"(assert (forall ({variables}) (=> (and {' '.join(parts)} true) {goal})))"


def _cuts(network: Network, value: str) -> bool:
    """Whether all that comes after a value is computed from it alone."""
    places = {name: place for place, name in enumerate(network.shapes)}
    after = [node for node in network.nodes if places[node.output] > places[value]]
    kept = {value, *(node.output for node in after)}
    return all(set(node.inputs) <= kept for node in after)


def _between(network: Network, first: str, last: str) -> list[Node]:
    places = {name: place for place, name in enumerate(network.shapes)}
    return [node for node in network.nodes if places[first] < places[node.output] <= places[last]]


def _of_samples(exhibit: Exhibit, theory: Theory, header: Sequence[str], folder: Path) -> Iterator[Path]:
    """The two files about samples."""
    rows = exhibit.test_rows[:MAX_SAMPLES]
    given = _given(exhibit, theory, rows)
    declared = [f"(declare-fun {_name(literal)} (Int) Bool)" for literal in theory.predicates]
    rules = ["; the clauses", *map(_sample_rule, theory.clauses), "; what is given of each sample"]
    facts = [f"(assert ({_name(p)} {row}))" for row, literals in zip(rows, given, strict=True) for p in sorted(literals)]
    wrong = [
        f"(assert (=> ({_name(literal)} {row}) false))"
        for literal in theory.predicates
        if literal.form == "class"
        for row in rows
        if exhibit.predictions[row] != literal.arguments[0]
    ]
    yield _written(folder / "theory.smt2", _script(header, SAMPLES, declared, [*rules, *facts, "; no class is wrong", *wrong]))
    for row, known in zip(rows, chain(theory, given) if rows else [], strict=True):
        goal = next((p for p in sorted(filter(None, known)) if p.form == "class"), None)
        if goal is not None:
            question = [line.format(goal=goal, sample=row) for line in DERIVABLE]
            asked = ["; what is asked", f"(assert (=> ({_name(goal)} {row}) false))"]
            yield _written(folder / "derivation.smt2", _script(header, question, declared, [*rules, *facts, *asked]))
            return


def _written(path: Path, text: str) -> Path:
    write_text(path, text)
    return path


def _given(exhibit: Exhibit, theory: Theory, rows: Sequence[int]) -> list[set[Predicate]]:
    """For each row the literals that hold on it and are to be observed."""
    literals = [literal for literal in theory.predicates if literal not in theory.defined]
    part = part_of(exhibit.source, np.array(rows, dtype=np.int64))
    bits = body_bits([HornClause(None, (literal,)) for literal in literals], part) if rows else []
    return [{p for p, held in zip(literals, bits, strict=True) if held[place]} for place in range(len(rows))]


def _sample_rule(clause: HornClause) -> str:
    body = " ".join(f"({_name(literal)} s)" for literal in clause.body)
    goal = "false" if clause.head is None else f"({_name(clause.head)} s)"
    return f"(assert (forall ((s Int)) (=> (and {body} true) {goal})))"


def _name(literal: Predicate) -> str:
    return f"|{_safe(str(literal))}|"


def _at(layer: str) -> str:
    return f"|at {_safe(layer)}|"


def _entry(value: str, index: int) -> str:
    return f"|{_safe(value)}[{index}]|"


def _safe(name: str) -> str:
    return name.replace("\\", "/").replace("|", "!")


def _formula(formula: Formula) -> str:
    if isinstance(formula, Atom):
        terms = [f"(* {rational(t.coefficient)} {_entry(t.value, t.index)})" for t in formula.terms]
        return f"({'<' if formula.strict else '<='} (+ {' '.join([*terms, rational(formula.bias)])} 0) 0)"
    word, nothing = ("or", "false") if isinstance(formula, Or) else ("and", "true")
    return f"({word} {' '.join(map(_formula, formula.parts))} {nothing})"
