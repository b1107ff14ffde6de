import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmine.errors import BadClause
from specmine.predicates.families import FORMS
from specmine.predicates.predicate import Predicate
from specmine.rules.clause import HornClause
from specmine.rules.syntax import parse_clause, parse_clauses

SITES = st.sampled_from(["h1", "x", "true", "onnx::Relu_3", "Relu", "a b", "it's", "back\\slash", "é", "9", "", "%no", "tab\t"])
KINDS = {
    "site": SITES,
    "neuron": st.integers(0, 10**6),
    "index": st.integers(2, 10**6),  # also a period
    "class": st.integers(0, 999),
    "threshold": st.floats(allow_nan=False, allow_infinity=False),
}


@st.composite
def predicates(draw):
    form = draw(st.sampled_from(sorted(FORMS)))
    arguments = [draw(KINDS[kind]) for kind in FORMS[form].signature]
    if form == "within":
        arguments[2:] = sorted(arguments[2:])
    return Predicate(form, tuple(arguments))


clauses = st.builds(HornClause, st.none() | predicates(), st.lists(predicates(), max_size=4).map(tuple))


@given(clauses)
def test_what_is_printed_is_what_is_read(clause):
    assert parse_clause(str(clause)) == clause
    assert str(parse_clause(str(clause))) == str(clause)


@given(st.lists(clauses, max_size=4), st.sampled_from(["\n", " ", "% note: a 'quote' and a :- .\n", "\r\n\t"]))
def test_clauses_in_order_with_comments_between(listed, between):
    assert parse_clauses(between + between.join(map(str, listed)) + between) == tuple(listed)


def test_blanks_integers_and_exponents():
    clause = parse_clause("class( 7 ):-above(h2 ,12,-1),\n  below('h2',3,2.5E-3).% end")
    above, below = Predicate("above", ("h2", 12, -1.0)), Predicate("below", ("h2", 3, 0.0025))
    assert clause == HornClause(Predicate("class", (7,)), (above, below))
    assert isinstance(clause.body[0].arguments[2], float)


def test_false_and_true():
    assert parse_clause("false :- active(h1,0).") == HornClause(None, (Predicate("active", ("h1", 0)),))
    assert parse_clause("class(1) :- true.") == HornClause(Predicate("class", (1,)), ())


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("class(7) :- abve(h2,12,0.75).", (1, 13), "no form 'abve'; nearest: above"),
        ("class(7) :- above(h2,1.5,0.75).", (1, 22), "expected a neuron index (an integer >= 0 such as 12), as in above("),
        ("class(7) :- active(h2,-1).", (1, 23), "expected a neuron index"),
        ("class(7) :-\n  above(h2,12,high).", (2, 15), "expected a threshold (a number such as 0.75)"),
        ("class(7) :- above(h2,12).", (1, 24), "expected ',' and then the threshold, as in above(site, neuron, threshold)"),
        ("class(7) :- active(h2,1,2).", (1, 24), "expected ')' after the 2 argument(s) of active(site, neuron)"),
        ("class(7) : active(h2,1).", (1, 10), "expected ':-' after the head, got ':'"),
        ("class(7) :- active(h2,1)", (1, 25), "'.' to end the clause, the text ends"),
        ("class(7) :- active('h2,1).", (1, 20), "a quote that is not closed"),
        ("class(7) :- active(3,1).", (1, 20), "expected a site name such as h1"),
        ("class(7) :- above(h2,1,1e999).", (1, 24), "too large for a float64"),
        ("class(7) :- .", (1, 13), "expected a literal such as active(h1,3), or true, got '.'"),
        ("class(7) :- true. class(8) :- true.", (1, 19), "expected the end of the text after one clause"),
        ("class(7) :- within(h2,1,3,2).", (1, 13), "swap them"),
        ("", (1, 1), "expected a head such as class(7), or false, the text ends"),
    ],
)
def test_a_mistake_is_answered_with_place_and_expectation(text, place, words):
    with pytest.raises(BadClause) as caught:
        parse_clause(text)
    line, column = place
    message = str(caught.value)
    assert message.startswith(f"line {line}, column {column}: ")
    assert words in message
    assert message.rsplit("\n", maxsplit=1)[-1] == "  " + " " * (column - 1) + "^"


@given(st.text(alphabet="clas(7):-,.'\\% 1e+h\nfalsetrueabove", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        read = parse_clauses(text)
    except BadClause as error:
        assert "line" in str(error)
    else:
        assert parse_clauses(" ".join(map(str, read))) == read
