"""Hostile VNN-LIB texts end in a query or in a clear error: no crash, no hang, memory bounded."""

import gzip
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.errors import BadQuery, VerifierError
from verifier.formats.vnnlib import parse_vnnlib, read_vnnlib
from verifier.formula import at_least, at_most
from verifier.network import Network, Node
from verifier.ops import Relu
from verifier.query import Query

NETWORK = Network("x", (2,), (Node("h", Relu(), ("x",)), Node("y", Relu(), ("h",))), "y")
HEAD = "".join(f"(declare-const {letter}_{i} Real)" for letter in "XY" for i in range(2))
BOX = "(assert (and (= X_0 0) (= X_1 1)))"
HEAD2 = (
    "(vnnlib-version <2.0>)(declare-network f (declare-input X real [2])"
    '(declare-hidden H real [2] "h")(declare-output Y real [2]))'
)
BOX2 = "(assert (== X[0] 0.5))(assert (== X[1] 0.5))"
VALID = [
    HEAD + BOX + "(assert (or (and (<= Y_0 1.5e-3) (>= X_0 -2)) (not (< (+ Y_0 (* 2 Y_1)) (/ X_1 4)))))",
    HEAD2 + BOX2 + "(assert (or (and (<= Y[0] 1.5) (>= H[1] -2.0)) (!= (+ Y[0] (* 2.0 Y[1])) (- X[1] 4.0)))); end",
]


def read(text: str) -> Query | None:
    """The query, or None where the text is refused in one clear line."""
    try:
        return parse_vnnlib(text, NETWORK)
    except VerifierError as error:
        assert "\n" not in str(error) and 10 < len(str(error)) < 1000
        return None


@pytest.mark.parametrize("text", VALID)
def test_truncated_texts(text):
    assert read(text) is not None
    for cut in range(len(text)):
        read(text[:cut])


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.text('()<=>=+-*/ XY_01.e[],";\\', max_size=200), st.binary(max_size=99).map(repr)))
def test_random_texts(text):
    for head in ("", HEAD + BOX, HEAD2 + BOX2, HEAD + "(assert ", HEAD2 + "(assert (and "):
        read(head + text)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(VALID), st.data())
def test_mutated_texts(text, data):
    """Words taken out, doubled, swapped or put elsewhere."""
    words = re.findall(r'"[^"]*"|[()\[\],]|[^\s()\[\],]+', text)
    for _ in range(data.draw(st.integers(1, 3))):
        i, j = (data.draw(st.integers(0, len(words) - 1)) for _ in range(2))
        match data.draw(st.sampled_from(["drop", "double", "swap", "copy", "odd"])):
            case "drop" if len(words) > 1:
                del words[i]
            case "double":
                words.insert(i, words[i])
            case "swap":
                words[i], words[j] = words[j], words[i]
            case "copy":
                words[i] = words[j]
            case _:
                words[i] = data.draw(
                    st.sampled_from(["1e308", "-1e-999", "9" * 5000, "X_1e9", "\0", "[999999999999999999]", '"'])
                )
    read(" ".join(words))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_random_files(tmp_path_factory, content, packed):
    path = tmp_path_factory.mktemp("any") / ("q.vnnlib.gz" if packed else "q.vnnlib")
    path.write_bytes(gzip.compress(content) if packed and len(content) % 2 else content)
    with pytest.raises(BadQuery):
        read_vnnlib(path, NETWORK)


DEEP = 30_000
LARGE = {
    "open parentheses": ("(" * DEEP, "expected an operator|not closed"),
    "brackets": (HEAD2 + "(assert (<= " + "[" * DEEP, "not closed"),
    "one formula, deep": (HEAD + BOX + "(assert " + "(and " * DEEP + "(<= Y_0 1)" + ")" * DEEP + ")", None),
    "alternating, alone": (HEAD + BOX + "(assert " + "(or (and " * DEEP + "(<= Y_0 1)" + "))" * DEEP + ")", None),
    "alternating": (
        HEAD + BOX + "(assert " + "(or (> Y_0 1) (and (> Y_1 1) " * 5000 + "(<= Y_0 1)" + "))" * 5000 + ")",
        "alternate more than 100 levels",
    ),
    "negations": (HEAD + BOX + "(assert " + "(not " * DEEP + "(<= Y_0 1)" + ")" * DEEP + ")", None),
    "negations of much": (
        HEAD + BOX + "(assert " + "(not (and (> Y_1 0) " * 5000 + "(<= Y_0 1)" + "))" * 5000 + ")",
        "alternate more than 100 levels",
    ),
    "minus": (HEAD + BOX + "(assert (<= " + "(- " * DEEP + "Y_0" + ")" * DEEP + " 1))", None),
    "nested sum": (HEAD + BOX + "(assert (<= " + "(+ Y_1 " * DEEP + "Y_0" + ")" * DEEP + " 1))", None),
    "product": (HEAD + BOX + "(assert (<= (* " + "1e-300 " * DEEP + "Y_0) 1))", "a fraction of over 100000 bits"),
    "growing product": (HEAD + BOX + "(assert (<= (* " + "1e300 " * DEEP + "Y_0) 1))", "a number beyond"),
    "power": (HEAD + BOX + "(assert (<= Y_0 1e999999999))", "expected a formula, a number"),
    "fractions": (
        HEAD + BOX + "(assert (<= (+ " + " ".join(f"(/ Y_0 {3**600 + k})" for k in range(200)) + ") 1))",
        "100000 bits",
    ),
    "alternatives": (
        HEAD + BOX + "(assert (or (<= Y_0 1) (>= Y_1 2)))" * 3000,
        "over 20000000 atoms in disjunctive normal form",
    ),
    "alternatives of alternatives": (HEAD + BOX + ("(assert (or " + "(<= Y_0 1)" * 300 + "))") * 300, "over 20000000 atoms"),
    "input index": (
        HEAD + "(declare-const X_999999999999 Real)",
        "X_999999999999 is declared, but the network's input 'x' has shape",
    ),
    "tensor": (HEAD2.replace("[2]", "[1000000000000]") + BOX2, "declared with shape"),
    "tensor of many axes": (HEAD2.replace("[2]", "[" + "9," * DEEP + "9]"), "at most 64 of them"),
    "index of many places": (HEAD2 + f"(assert (<= X[{'0,' * DEEP}0] 0.5))", "1 indices are needed, found 30001"),
    "name": (HEAD2.replace('"h"', '"' + "h" * 10**6 + '"'), "no such value 'hhh"),
    "string without an end": (HEAD2 + '"' + "\\\\x" * 10**6, "a string without an end"),
    "comments": (";" * 5 * 10**7 + "\n" + HEAD + BOX, None),
    "blanks": (HEAD + " \n" * 5_000_000 + BOX, None),
    "one word": ("(" + "a" * 5 * 10**7 + ")", "unknown command"),
    "digits": (HEAD + BOX + "(assert (<= Y_0 0." + "1" * 10**6 + "))", "a number of 1000001 digits"),
}
CHILD = """
    import json, resource, sys
    resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
    from verifier.errors import VerifierError
    from verifier.formats.vnnlib import parse_vnnlib
    from verifier.network import Network, Node
    from verifier.ops import Relu
    network = Network("x", (2,), (Node("h", Relu(), ("x",)), Node("y", Relu(), ("h",))), "y")
    for text in json.load(sys.stdin):
        try:
            print("read", len(parse_vnnlib(text, network).disjuncts))
        except VerifierError as error:
            print(error)
"""


def test_large_texts_in_bounded_memory():
    """In a process that may have 3 GB of addresses and no more; half of it are libraries and the texts themselves."""
    given = json.dumps([text for text, _ in LARGE.values()])
    command = [sys.executable, "-c", textwrap.dedent(CHILD)]
    run = subprocess.run(command, input=given, capture_output=True, text=True, timeout=500, cwd=Path(__file__).parents[3])
    assert run.returncode == 0, run.stderr[-500:]
    answers = run.stdout.splitlines()
    for (name, (_, message)), answer in zip(LARGE.items(), answers, strict=True):
        assert len(answer) < 1000 and re.search("^read 1$" if message is None else message, answer), (name, answer)


def test_packed_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("verifier.formats.vnnlib.MAX_BYTES", 10**6)
    (tmp_path / "q.vnnlib.gz").write_bytes(gzip.compress(bytes(10**8)))
    with pytest.raises(BadQuery, match="over 1000000 bytes"):
        read_vnnlib(tmp_path / "q.vnnlib.gz", NETWORK)


def test_many_words_are_refused(monkeypatch):
    monkeypatch.setattr("verifier.formats.vnnlib_tokens.MAX_TOKENS", 100)
    with pytest.raises(BadQuery, match="over 100 words and parentheses"):
        parse_vnnlib(HEAD + BOX * 10, NETWORK)


def test_deep_formulas_mean_what_they_say():
    deep = "(or (and (>= Y_0 2) (or " * 9 + "(<= Y_1 3)" + ")))" * 9
    assert set(parse_vnnlib(HEAD + BOX + f"(assert {deep})", NETWORK).disjuncts[0]) == {at_least("y", 0, 2), at_most("y", 1, 3)}
    assert np.isfinite(parse_vnnlib(VALID[0], NETWORK).region.size)
