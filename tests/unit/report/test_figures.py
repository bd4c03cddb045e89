"""Figures are pictures of readable size, whatever is missing or oddly named."""

from __future__ import annotations

import dataclasses
import io

import pytest
from PIL import Image

from dynacor_ray.report.figures import comparison_figure
from tests.judgments import NOISES, TWELVE, failed, judged, many


@pytest.mark.parametrize(("noises", "seeds"), [(NOISES[:1], 1), (TWELVE, 3)], ids=["one", "twelve"])
def test_the_figure_is_a_picture_of_readable_size(noises: tuple[str, ...], seeds: int) -> None:
    titles = tuple(f"Detector {number}" for number in range(12))
    data = comparison_figure([*many(noises, titles, seeds), failed("disk", title="kNN")])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    picture = Image.open(io.BytesIO(data))
    picture.load()
    assert 600 <= picture.width <= 3000
    assert 600 <= picture.height <= 3000


def test_the_figure_takes_odd_names_and_nothing_at_all() -> None:
    odd = [judged(0.5, title="_a $\\frac{ \x1b", noise="$\\x{ _"), judged(None, title="CL"), failed("disk", title="X")]
    for judgments in ([], odd, [failed("disk")]):
        Image.open(io.BytesIO(comparison_figure(judgments))).load()


def test_the_figure_shows_the_values_and_the_oracle() -> None:
    low = judged(0.5)
    pictures = {
        comparison_figure([low]),
        comparison_figure([low, judged(0.6, seed=1)]),
        comparison_figure([dataclasses.replace(low, metrics=low.metrics | {"oracle_f1": 0.9})]),
        comparison_figure([low, failed("disk", title="CL")]),
    }
    assert len(pictures) == 4
