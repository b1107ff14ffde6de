import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmine.config import EXPORTER_NAMES, FAMILY_NAMES, Config, make_config
from specmine.errors import BadConfig
from specmine.export import EXPORTERS
from specmine.predicates.families import FAMILIES


def test_defaults_without_a_file():
    assert make_config() == Config()


def test_overrides_win_over_the_file(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('seed = 3\nrecall = 0.8\nregions = ["domain", "ball:0.1"]\n')
    config = make_config(path, seed=5, recall=None)
    assert (config.seed, config.recall, config.regions) == (5, 0.8, ("domain", "ball:0.1"))


def test_an_unknown_key_names_the_nearest(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("max_clause = 3\n")
    with pytest.raises(BadConfig, match=r"unknown key 'max_clause'; nearest are max_clauses"):
        make_config(path)


def test_every_problem_is_named():
    with pytest.raises(BadConfig) as caught:
        make_config(recall=2.0, wrong=1)
    assert "'recall'" in str(caught.value) and "'wrong'" in str(caught.value)


@pytest.mark.parametrize("text", ["seed = ", "\x00", "[a"])
def test_a_file_that_is_no_toml(tmp_path, text):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(BadConfig, match="cannot read configuration"):
        make_config(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(BadConfig, match="cannot read configuration"):
        make_config(tmp_path / "no.toml")


def test_the_names_are_those_of_the_parts():
    assert set(FAMILY_NAMES) == set(FAMILIES) and set(EXPORTER_NAMES) == set(EXPORTERS)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("families", ["unary", "binry"], "no predicate family 'binry'; nearest is binary; known are unary"),
        ("exports", ["pdf"], "no exporter 'pdf'; known are smtlib"),
        ("engine", "magic", "no engine 'magic'; known are auto"),
    ],
)
def test_a_part_that_there_is_not(key, value, message):
    with pytest.raises(BadConfig, match=f"^configuration: key '{key}': {message}"):
        make_config(**{key: value})


@pytest.mark.parametrize("region", ["ball", "ball:-1", "ball:x", "Domain", "ball:0.1:3", ""])
def test_a_region_that_is_none(region):
    with pytest.raises(BadConfig, match=f"^configuration: key 'regions': {re.escape(repr(region))} is not a region; write"):
        make_config(regions=[region])


@given(st.builds(Config, seed=st.integers(), thresholds=st.integers(1, 99), recall=st.floats(0.01, 1)))
def test_a_dump_reads_back(config):
    assert make_config(**config.model_dump(mode="json")) == config


@pytest.mark.parametrize("key", ["families", "locality"])
def test_lists_that_must_not_be_empty(key):
    with pytest.raises(BadConfig, match=f"key '{key}': Tuple should have at least 1 item"):
        make_config(**{key: ()})
