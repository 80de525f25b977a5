"""Every text pair in use is readable and every control visible, in both themes: WCAG 2.2, 1.4.3 and
1.4.11.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
from django.conf import settings

CSS = (Path(settings.BASE_DIR) / "console/static/console/console.css").read_text()
TOKENS = {
    name: (light, dark)
    for name, light, dark in re.findall(r"--([\w-]+):\s*light-dark\((#\w{6}), (#\w{6})\)", CSS)
}

INKS = product(("ink", "ink-2", "ink-3"), ("bg", "surface", "sunken", "hover"))
ACTIONS = ("admit", "defer", "batch", "shed", "block")
STATES = ("ok", "warn", "bad")
TEXT = [
    *INKS,
    *((f"{a}-fg", ground) for a in ACTIONS for ground in (f"{a}-wash", "surface", "hover", "bg")),
    *((f"{s}-fg", ground) for s in STATES for ground in (f"{s}-wash", "surface", "hover", "bg")),
    *(("accent", ground) for ground in ("surface", "bg", "accent-wash", "hover")),
    ("on-solid", "solid"),
    ("on-solid", "bad-solid"),
    *(
        (ink, ground)
        for ink in ("ink", "ink-2")
        for ground in ("accent-wash", "warn-wash", "bad-wash", "defer-wash")
    ),
    ("ink-3", "bad-wash"),
]
SHAPES = [
    *(("control", ground) for ground in ("surface", "bg")),
    *(("focus", ground) for ground in ("surface", "bg")),
    *(("raise", ground) for ground in ("surface",)),
    *(("lower", ground) for ground in ("surface",)),
]


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2 definition."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def ratio(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXT)
def test_text_is_readable(text: str, ground: str, theme: int) -> None:
    assert ratio(TOKENS[text][theme], TOKENS[ground][theme]) >= 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("shape", "ground"), SHAPES)
def test_controls_and_bars_are_visible(shape: str, ground: str, theme: int) -> None:
    assert ratio(TOKENS[shape][theme], TOKENS[ground][theme]) >= 3


def test_the_ratio_is_the_known_one() -> None:
    assert ratio("#000000", "#ffffff") == pytest.approx(21)
    assert ratio("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
