"""Style of the things in the `shop` world: palette, pattern and cut, drawn the same way for all categories, brands and prices.

Tastes are about style, and only pictures show it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PATTERNS = ("plain", "stripes", "checks", "dots", "zigzag", "flowers")
_PATTERN_SHARES = (0.35, 0.13, 0.13, 0.13, 0.13, 0.13)

# How much each property counts in the squared distance between two styles, before scaling; people name patterns and
# colours first, and the size of a pattern last.
TASTE_WEIGHTS = {"hue": 1.5, "saturation": 0.5, "lightness": 1.0, "pattern": 1.5, "scale": 0.5, "cut": 1.25}


@dataclass(frozen=True, kw_only=True)
class Style:
    """One entry for each item; each (N,) float32 unless noted."""

    hue: np.ndarray  # [0, 1) around the OKLCh circle
    saturation: np.ndarray  # [0, 1]; a quarter of all things is nearly grey
    lightness: np.ndarray  # [0, 1]
    pattern: np.ndarray  # (N,) int64 index into PATTERNS
    scale: np.ndarray  # [0, 1]: the pattern's period, small to large
    cut: np.ndarray  # [0, 1]: short, wide, plump ... long, narrow, slim
    second_hue: np.ndarray  # [0, 1): the pattern's other colour
    second_saturation: np.ndarray
    second_lightness: np.ndarray  # always well apart from `lightness`

    def take(self, rows: np.ndarray) -> Style:
        return Style(**{name: values[rows] for name, values in vars(self).items()})


def draw_styles(n: int, rng: np.random.Generator) -> Style:
    """Styles of `n` things."""
    grey = rng.random(n) < 0.25
    hue = rng.random(n)
    saturation = np.where(grey, rng.beta(1, 9, n), rng.beta(4, 2, n))
    lightness = rng.beta(1.5, 1.4, n)
    shift = rng.choice([0.0, 0.08, -0.08, 0.33, 0.5], n)
    contrast = rng.uniform(0.4, 0.75, n)
    columns = {
        "hue": hue,
        "saturation": saturation,
        "lightness": lightness,
        "scale": rng.random(n),
        "cut": rng.beta(1.2, 1.2, n),
        "second_hue": (hue + shift) % 1.0,
        "second_saturation": np.where(rng.random(n) < 0.35, 0.1, saturation * rng.uniform(0.4, 1.0, n)),
        "second_lightness": np.clip(np.where(lightness < 0.5, lightness + contrast, lightness - contrast), 0.0, 1.0),
    }
    pattern = rng.choice(len(PATTERNS), n, p=_PATTERN_SHARES)
    return Style(pattern=pattern, **{name: values.astype(np.float32) for name, values in columns.items()})


def taste_points(style: Style) -> np.ndarray:
    """(N, 12) float32: places in style space; squared distances weigh the properties by TASTE_WEIGHTS.

    A grey thing has no hue and a plain one no pattern size, so both shrink to the middle there.
    """
    angle = 2 * np.pi * style.hue
    patterned = style.pattern > 0
    properties = {
        "hue": style.saturation[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1),
        "saturation": style.saturation[:, None],
        "lightness": style.lightness[:, None],
        "pattern": np.eye(len(PATTERNS))[style.pattern],
        "scale": ((style.scale - 0.5) * patterned)[:, None],
        "cut": style.cut[:, None],
    }
    scaled = []
    for name, values in properties.items():
        spread = np.sqrt(values.var(axis=0).sum())
        scaled.append((values - values.mean(axis=0)) / max(spread, 1e-6) * np.sqrt(TASTE_WEIGHTS[name]))
    return np.concatenate(scaled, axis=1).astype(np.float32)


def pattern_share(style: Style, u: np.ndarray, v: np.ndarray, phase: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """(B, H, W) in [0, 1]: how much of the second colour shows at object coordinates u, v.

    Args:
        phase: (B, 1, 1) where the pattern begins, in object units.
        soft: (B, 1, 1) size of a pixel in object units: the width of an antialiased edge.
    """
    period = 0.2 + 0.36 * style.scale[:, None, None]
    share = np.zeros(u.shape, dtype=np.float32)
    for kind, draw in enumerate((None, _stripes, _checks, _dots, _zigzag, _flowers)):
        rows = np.flatnonzero(style.pattern == kind)
        if draw is not None and len(rows):
            moved = u[rows] + phase[rows], v[rows] + phase[rows]
            share[rows] = draw(*moved, period[rows], soft[rows])
    return share


def _edge(distance: np.ndarray, soft: np.ndarray) -> np.ndarray:
    return np.clip(0.5 - distance / soft, 0, 1)


def _bands(x: np.ndarray, period: np.ndarray, soft: np.ndarray) -> np.ndarray:
    away = np.abs(x / period - np.floor(x / period) - 0.5) * period
    return _edge(away - period / 4, soft)


def _stripes(u: np.ndarray, v: np.ndarray, period: np.ndarray, soft: np.ndarray) -> np.ndarray:
    return _bands(v, period, soft)


def _checks(u: np.ndarray, v: np.ndarray, period: np.ndarray, soft: np.ndarray) -> np.ndarray:
    return (_bands(u, period, soft) + _bands(v, period, soft)) / 2


def _zigzag(u: np.ndarray, v: np.ndarray, period: np.ndarray, soft: np.ndarray) -> np.ndarray:
    tooth = np.abs(u / period / 1.4 - np.floor(u / period / 1.4) - 0.5)
    return _bands(v + 1.4 * period * tooth, period, soft)


def _cells(u: np.ndarray, v: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions within the cells of a brick-like grid, in object units from each cell's middle."""
    row = np.floor(v / side)
    x = u / side + 0.5 * (row % 2)
    return (x - np.floor(x) - 0.5) * side, (v / side - row - 0.5) * side


def _dots(u: np.ndarray, v: np.ndarray, period: np.ndarray, soft: np.ndarray) -> np.ndarray:
    x, y = _cells(u, v, period)
    return _edge(np.hypot(x, y) - 0.32 * period, soft)


def _flowers(u: np.ndarray, v: np.ndarray, period: np.ndarray, soft: np.ndarray) -> np.ndarray:
    side = 1.5 * period
    x, y = _cells(u, v, side)
    radius = np.hypot(x, y) + 1e-6
    petals = (x**5 - 10 * x**3 * y**2 + 5 * x * y**4) / radius**5  # cos(5 angle)
    flower = _edge(radius - side * (0.31 + 0.12 * petals), soft)
    return flower * (1 - _edge(radius - 0.11 * side, soft))
