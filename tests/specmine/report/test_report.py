import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import toy

from specmine.data import from_arrays
from specmine.pipeline.inputs import Inputs
from specmine.pipeline.stages import verify_stage, write_report
from specmine.report import report_html
from specmine.report.figures import picture
from specmine.report.html import recheck_command
from specmine.spec import Shortfall

VOID = {"meta", "br", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that every element is closed, and collects attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def exhibit(tmp_path_factory):
    run = toy.run(tmp_path_factory.mktemp("run"))
    verify_stage(run)
    return run.exhibit


def page_of(text):
    page = Page()
    page.feed(text)
    assert page.open == []
    return page


def test_the_page_is_self_contained(exhibit):
    page = page_of(report_html(exhibit))
    links = [v for _, name, v in page.attributes if name in ("src", "href", "xlink:href", "action", "srcset")]
    assert all(value.startswith(("data:", "#")) for value in links), links
    assert "@import" not in page.text and "url(http" not in page.text


def test_evidence_and_verdict_stand_apart(exhibit):
    text = report_html(exhibit)
    page = page_of(text)
    for words in ("verified recall", "class(1) :- above(h1,1,0.25).", "refuted", "vacuous", "model", "sha256"):
        assert words in page.text
    headings = re.findall(r"<th>(.*?)</th>", text)
    assert headings == ["clause", "evidence: precision, recall", "region", "verdict"]
    assert text.count("<tr id=") == len(exhibit.spec.claims)
    assert "prefers-color-scheme: dark" in text and "@media print" in text and 'name="viewport"' in text


def test_a_clause_below_the_asked_recall_is_marked(exhibit):
    first, *rest = exhibit.spec.claims
    marked = replace(exhibit.spec, claims=(replace(first, shortfall=Shortfall(0.95, 0.91)), *rest))
    assert page_of(report_html(replace(exhibit, spec=marked))).text.count("below the asked recall of 0.95: 0.9100") == 1
    assert "below the asked recall" not in report_html(exhibit)


def test_the_same_run_gives_the_same_page(exhibit):
    assert report_html(exhibit) == report_html(exhibit)


def test_names_are_escaped(exhibit):
    data = replace(exhibit.dataset, name="<script>alert(1)</script>")
    assert "<script>alert(1)" not in report_html(replace(exhibit, dataset=data))


def test_images_are_drawn_for_image_data(tmp_path):
    x, y = toy.arrays()
    data = from_arrays(x, y, name="toy", lower=0.0, upper=1.0, image_shape=(1, 2))
    run = toy.run(tmp_path)
    verify_stage(run)
    text = report_html(replace(run, inputs=Inputs(run.inputs.network, data, None)).exhibit)
    page = page_of(text)
    assert sum(tag == "img" and name == "src" for tag, name, _ in page.attributes) > 8
    assert any(value == "counter" for _, name, value in page.attributes if name == "class")


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3), (3, 2, 3)])
def test_pictures_of_grey_and_colour(shape):
    assert picture(np.linspace(0, 1, int(np.prod(shape))), shape, 0.0, 1.0).startswith("data:image/png;base64,iVBOR")


def test_a_run_without_claims_has_a_report(tmp_path):
    run = toy.run(tmp_path)
    (tmp_path / "claims.json").unlink()
    assert "No claims yet" in page_of(write_report(run).read_text()).text


def test_the_command_to_check_again(exhibit):
    proved, _, refuted, _ = exhibit.spec.claims
    assert recheck_command(proved) == f"verifier check {proved.outcome.certificate} --network model.network"
    assert recheck_command(refuted) == "specmine verify . --region domain --clause 'class(0) :- inactive(h1,1).'"
