"""Figures as inline SVG and PNG; transparent, in greys that are readable on light and on dark ground."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from specmine.spec import Claim
from verifier.ops import Array

GREY = "#888888"
TINT = np.array([0.78, 0.27, 0.23])
TARGET = 96
"""About how many pixels wide a picture of a predicate is."""
COLORS = {"proved": "#2e9e5b", "vacuous": "#7aa8c9", "unknown": "#c9a227", "unchecked": "#9a9a9a", "refuted": "#c8453b"}
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "specmine",
    "svg.fonttype": "none",
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "font.size": 9,
    "font.family": "sans-serif",
}


def frontier_figure(claims: Sequence[Claim]) -> str:
    """Test recall of every claim against the length of its body, coloured by verdict."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.2))
        axes = figure.subplots()
        for verdict, color in COLORS.items():
            points = [
                (len(claim.clause.body), claim.evidence.test.recall or 0.0)
                for claim in claims
                if claim.outcome.verdict == verdict
            ]
            if points:
                lengths, recalls = zip(*points, strict=True)
                axes.scatter(lengths, recalls, s=22, alpha=0.75, color=color, label=verdict, linewidths=0)
        axes.set_xscale("symlog", linthresh=10)
        axes.set_xlabel("literals in the body")
        axes.set_ylabel("recall on the test split")
        axes.set_ylim(-0.03, 1.03)
        if claims:
            axes.legend(frameon=False, labelcolor=GREY)
        return _svg(figure, "Test recall against body length, by verdict")


def seconds_figure(seconds: Mapping[str, float]) -> str:
    """Wall-clock seconds of each stage."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.5 + 0.3 * max(1, len(seconds))))
        axes = figure.subplots()
        names = list(seconds)[::-1]
        bars = axes.barh(names, [seconds[name] for name in names], color="#5b8db8")
        axes.bar_label(bars, fmt="%.1f", padding=3, color=GREY)
        axes.set_xlabel("seconds")
        axes.margins(x=0.12)
        return _svg(figure, "Seconds by stage")


def picture(values: Array, shape: Sequence[int], lower: float, upper: float) -> str:
    """One sample (or a mean of samples) as a data URI of a small PNG; planes (3, h, w) are colours, else the first plane."""
    image = np.asarray(values, dtype=np.float64).reshape(shape)
    if image.ndim == 3:
        image = np.moveaxis(image, 0, -1) if image.shape[0] == 3 else image[0]
    scaled = np.clip((image - lower) / ((upper - lower) or 1.0), 0.0, 1.0)
    return _png((255 * scaled).round().astype(np.uint8))


def window_picture(mean: str, reaction: Array) -> str:
    """A mean image (a data URI of `picture`) under a tint of how strongly (height, width) each pixel is reacted to; PNG.

    A frame shows the smallest window that holds every pixel with any reaction.
    """
    image = matplotlib.image.imread(io.BytesIO(base64.b64decode(mean.split(",", 1)[1])))[..., :3]
    scale = max(1, -(-TARGET // max(reaction.shape)))
    pixels = np.kron(image, np.ones((scale, scale, 1)))
    share = np.kron(reaction / (reaction.max() or 1.0), np.ones((scale, scale)))[..., None]
    pixels = (1 - 0.7 * share) * pixels + 0.7 * share * TINT
    rows, columns = np.flatnonzero(reaction.any(axis=1)), np.flatnonzero(reaction.any(axis=0))
    if len(rows):
        top, bottom = scale * rows[0], scale * (rows[-1] + 1) - 1
        left, right = scale * columns[0], scale * (columns[-1] + 1) - 1
        _frame(pixels, top, bottom, left, right)
    return _png((255 * pixels).round().astype(np.uint8))


def attention_map(probabilities: Array, entries: Sequence[tuple[int, int]]) -> str:
    """Probabilities (queries, keys) of one head as a PNG, dark where they are high, with entries (query, key) framed."""
    scale = max(3, -(-TARGET // max(probabilities.shape)))
    grey = 1 - np.kron(np.clip(probabilities, 0, 1), np.ones((scale, scale)))
    pixels = np.repeat(grey[..., None], 3, axis=2)
    for query, key in entries:
        _frame(pixels, scale * query, scale * (query + 1) - 1, scale * key, scale * (key + 1) - 1)
    return _png((255 * pixels).round().astype(np.uint8))


def _frame(pixels: Array, top: int, bottom: int, left: int, right: int) -> None:
    pixels[[top, bottom], left : right + 1] = TINT
    pixels[top : bottom + 1, [left, right]] = TINT


def _png(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, pixels, format="png", cmap="gray", vmin=0, vmax=255)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    figure.tight_layout()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\s(width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
    return text.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "") if "xlink:" not in text.split(">", 1)[1] else text
