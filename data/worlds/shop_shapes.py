"""Silhouettes of the things in the `shop` world, as signed distances: below 0 inside, in object units.

Every silhouette has one continuous parameter, `cut`: 0 is short, wide and plump, 1 is long, narrow and slim, in every
category: a taste for slim things means the same for a dress as for a lamp. A thing fills about -0.85..0.85.
Axes: u to the right, v downwards, each (B, H, W); cut (B, 1, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class SilhouetteParts:
    """The parts of a silhouette; each (B, H, W)."""

    cloth: Array  # signed distance of the part with palette and pattern
    trim: Array  # signed distance of wood, metal, soles ... drawn over the cloth
    crease: Array | float = 0.0  # 0..1, how much a fold or seam darkens


def _box(u: Array, v: Array, x, y, half_width, half_height, corner: Array | float = 0.0) -> Array:
    across, down = np.abs(u - x) - (half_width - corner), np.abs(v - y) - (half_height - corner)
    return np.hypot(np.maximum(across, 0), np.maximum(down, 0)) + np.minimum(np.maximum(across, down), 0) - corner


def _ellipse(u: Array, v: Array, x, y, a, b) -> Array:
    """A distance near the edge; only the sign is right elsewhere."""
    return (np.hypot((u - x) / a, (v - y) / b) - 1) * np.minimum(a, b)


def _stick(u: Array, v: Array, start, end, thick, thick_end=None) -> Array:
    """A line between two points with round ends, `thick` (radius) at the start and `thick_end` at the end."""
    (x, y), dx, dy = start, end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - x) * dx + (v - y) * dy) / (dx * dx + dy * dy), 0, 1)
    taper = 0 if thick_end is None else (thick_end - thick) * along
    return np.hypot(u - x - dx * along, v - y - dy * along) - thick - taper


def _turned(u: Array, v: Array, top, bottom, half_width: Array, corner: Array | float = 0.03) -> Array:
    """A thing with a straight axis, as if turned on a lathe: `half_width` may change along v."""
    return _box(u, v, 0, (top + bottom) / 2, half_width, (bottom - top) / 2, corner)


def _melt(a: Array, b: Array, radius) -> Array:
    """Union with a fillet."""
    near = np.maximum(radius - np.abs(a - b), 0) / radius
    return np.minimum(a, b) - near * near * radius / 4


def _line(distance: Array, width=0.022) -> Array:
    """1 on the zero line of `distance`, falling to 0 within `width`."""
    return np.maximum(1 - np.abs(distance) / width, 0)


def _between(cut: Array, plump: float, slim: float) -> Array:
    return np.float32(plump) + np.float32(slim - plump) * cut


def _tee(u: Array, v: Array, cut: Array) -> SilhouetteParts:
    width, hem, mirrored = _between(cut, 0.5, 0.31), _between(cut, 0.46, 0.8), np.abs(u)
    body = _turned(u, v, -0.66, hem, width - 0.04 * np.exp(-(((v - 0.1) / 0.3) ** 2)), 0.05)
    body = np.maximum(body, -0.68 + 0.33 * mirrored - v)
    hand = (width + _between(cut, 0.28, 0.2), _between(cut, -0.2, 0.42))
    sleeve = _stick(mirrored, v, (width - 0.1, -0.44), hand, _between(cut, 0.19, 0.13), _between(cut, 0.18, 0.09))
    neck = _ellipse(u, v, 0, -0.7, 0.19, 0.17)
    cloth = np.maximum(np.minimum(body, sleeve), -neck)
    collar = np.maximum(np.abs(neck - 0.02) - 0.022, body)
    return SilhouetteParts(cloth=cloth, trim=collar, crease=0.5 * _line(mirrored - width + 0.02))


def _dress(u: Array, v: Array, cut: Array) -> SilhouetteParts:
    hem, mirrored = _between(cut, 0.5, 0.88), np.abs(u)
    fall = np.clip((v + 0.16) / (hem + 0.16), 0, 1)
    bodice = 0.2 + 0.1 * np.clip((-0.16 - v) / 0.4, 0, 1)
    body = _turned(u, v, -0.72, hem, np.where(v < -0.16, bodice, 0.2 + _between(cut, 0.52, 0.12) * fall), 0.03)
    neck = _ellipse(u, v, 0, -0.76, 0.16, 0.24)
    arms = _ellipse(mirrored, v, 0.38, -0.56, 0.14, 0.22)
    folds = 0.35 * fall * np.maximum(np.sin(u / (0.17 + 0.4 * fall) * 9), 0)
    belt = np.maximum(np.abs(v + 0.16) - 0.03, body)
    return SilhouetteParts(cloth=np.maximum(np.maximum(body, -neck), -arms), trim=belt, crease=folds)


def _trousers(u: Array, v: Array, cut: Array) -> SilhouetteParts:
    hem, mirrored = _between(cut, 0.46, 0.88), np.abs(u)
    down = np.clip((v + 0.74) / (hem + 0.74), 0, 1)
    outer = 0.32 + _between(cut, 0.34, 0.02) * down
    inner = np.minimum(0.18 * np.clip((down - 0.3) / 0.7, 0, 1), outer - 0.1)
    middle = (inner + outer) / 2
    leg = _box(mirrored - middle, v, 0, (hem - 0.74) / 2, (outer - inner) / 2, (hem + 0.74) / 2, 0.02)
    belt = np.maximum(np.abs(v + 0.69) - 0.045, mirrored - 0.33)
    return SilhouetteParts(cloth=leg, trim=belt, crease=0.35 * _line(mirrored - middle) + 0.4 * _line(u) * (v < 0))


def _skirt(u: Array, v: Array, cut: Array) -> SilhouetteParts:
    hem = _between(cut, 0.3, 0.84)
    fall = np.clip((v + 0.58) / (hem + 0.58), 0, 1)
    hips = 0.09 * np.sin(np.pi * np.clip(fall * 1.4, 0, 1)) * cut
    width = _between(cut, 0.31, 0.27) + _between(cut, 0.54, 0.03) * fall + hips
    body = _turned(u, v, -0.63, hem, width, 0.03)
    folds = 0.4 * fall * np.maximum(np.sin(u / width * 11), 0)
    return SilhouetteParts(cloth=body, trim=np.maximum(np.abs(v + 0.6) - 0.05, body), crease=folds)


def _bag(u: Array, v: Array, cut: Array) -> SilhouetteParts:
    width, height = _between(cut, 0.74, 0.4), _between(cut, 0.36, 0.54)
    body = _box(u, v, 0, 0.78 - height, width + 0.1 * (v - 0.3) * (1 - cut), height, _between(cut, 0.2, 0.05))
    top = 0.78 - 2 * height
    handle = np.abs(_ellipse(u, v, 0, top, width * 0.6, _between(cut, 0.3, 0.42))) - 0.035
    handle = np.maximum(handle, v - top)
    clasp = _box(u, v, 0, top + 0.2, 0.05, 0.06, 0.02)
    flap = 0.6 * _line(v - top - 0.2 + 0.1 * (u / width) ** 2)
    return SilhouetteParts(cloth=body, trim=np.minimum(handle, clasp), crease=flap)


def _shoe(u: Array, v: Array, cut: Array) -> SilhouetteParts:
    sole_top = 0.42
    shaft_top, shaft = _between(cut, -0.02, -0.7), _between(cut, 0.27, 0.17)
    leg = _box(u, v, -0.36, (shaft_top + sole_top) / 2, shaft, (sole_top - shaft_top) / 2, 0.06)
    toe = _stick(u, v, (-0.3, 0.24), (0.5, 0.32), _between(cut, 0.26, 0.17), _between(cut, 0.2, 0.08))
    upper = np.maximum(_melt(leg, toe, 0.3), v - sole_top)
    thick = _between(cut, 0.15, 0.05)
    sole = _box(u, v, 0.04, sole_top + thick / 2, _between(cut, 0.7, 0.62), thick / 2, 0.025)
    heel = _box(u, v, -0.44, sole_top + 0.12, 0.11, 0.12, 0.02)
    trim = np.where(cut > 0.55, np.minimum(sole, heel), sole)
    lace = _stick(u, v, (-0.1, 0.02), (0.0, 0.12), 0.022)
    lace = np.minimum(lace, _stick(u, v, (0.05, 0.08), (0.14, 0.17), 0.022))
    return SilhouetteParts(cloth=upper, trim=np.minimum(trim, lace), crease=0.4 * _line(u - 0.33 + 0.4 * (v - 0.3)))


def _hat(u: Array, v: Array, cut: Array) -> SilhouetteParts:
    width, top = _between(cut, 0.44, 0.3), _between(cut, -0.2, -0.68)
    tapered, corner = width - 0.09 * np.clip((0.34 - v), 0, 1), _between(cut, 0.26, 0.08)
    crown = _box(u, v, 0, (top + 0.34) / 2, tapered, (0.34 - top) / 2, corner)
    brim = _ellipse(u, v, 0, 0.34, _between(cut, 0.86, 0.52), _between(cut, 0.16, 0.12))
    band = np.maximum(np.abs(v - 0.2) - _between(cut, 0.05, 0.07), crown)
    return SilhouetteParts(cloth=np.minimum(crown, brim), trim=band, crease=0.55 * _line(np.abs(v - 0.29), 0.05) * (crown < 0.02))


def _lamp(u: Array, v: Array, cut: Array) -> SilhouetteParts:
    foot = _between(cut, -0.06, 0.02)
    fall = np.clip((v + 0.78) / (foot + 0.78), 0, 1)
    shade = _turned(u, v, -0.78, foot, _between(cut, 0.32, 0.2) + _between(cut, 0.4, 0.06) * fall, 0.02)
    pole = _box(u, v, 0, 0.4, _between(cut, 0.07, 0.028), 0.42)
    bulge = _ellipse(u, v, 0, 0.42, _between(cut, 0.3, 0.001), 0.28)
    base = _turned(u, v, 0.7, 0.8, _between(cut, 0.36, 0.22), 0.04)
    stand = np.maximum(np.minimum(np.minimum(pole, base), bulge), foot - v)
    return SilhouetteParts(cloth=shade, trim=stand, crease=0.3 * np.maximum(np.cos(u * 8), 0) * (1 - fall))


def _mug(u: Array, v: Array, cut: Array) -> SilhouetteParts:
    width, height = _between(cut, 0.56, 0.32), _between(cut, 0.42, 0.68)
    x = u + 0.14
    body = _box(x, v, 0, 0.1, width, height, _between(cut, 0.16, 0.05))
    handle = np.abs(_ellipse(x, v, width, 0.1, _between(cut, 0.26, 0.22), height * 0.58)) - 0.055
    cloth = np.minimum(body, np.maximum(handle, width - x))
    drink = _ellipse(x, v, 0, 0.1 - height + 0.06, width * 0.88, 0.05)
    return SilhouetteParts(cloth=cloth, trim=drink, crease=0.55 * np.clip(np.abs(x / width) - 0.55, 0, 0.45))


def _chair(u: Array, v: Array, cut: Array) -> SilhouetteParts:
    width, top, mirrored = _between(cut, 0.5, 0.29), _between(cut, -0.36, -0.8), np.abs(u)
    back = _box(u, v, 0, (top + 0.12) / 2, width, (0.12 - top) / 2, _between(cut, 0.2, 0.06))
    seat = _box(u, v, 0, 0.22, width + 0.06, _between(cut, 0.15, 0.07), 0.06)
    arm = _box(mirrored, v, width + 0.06, 0.08, 0.09, 0.26, 0.08) + 0.35 * np.maximum(cut - 0.35, 0)
    leg = _stick(mirrored, v, (width - 0.04, 0.3), (width + 0.06, 0.84), _between(cut, 0.05, 0.035), 0.025)
    leg = np.maximum(leg, 0.27 - v)
    seam = 0.6 * _line(v - 0.22 + _between(cut, 0.15, 0.07), 0.03) * (mirrored < width)
    return SilhouetteParts(cloth=np.minimum(np.minimum(back, seat), arm), trim=leg, crease=seam)


def _watch(u: Array, v: Array, cut: Array) -> SilhouetteParts:
    dial, strap = _between(cut, 0.5, 0.33), _between(cut, 0.31, 0.16)
    band = _box(u, v, 0, 0, strap - 0.08 * np.abs(v), _between(cut, 0.84, 0.92), 0.05)
    face = _ellipse(u, v, 0, 0, dial, dial)
    ring = np.abs(face) - 0.045
    hands = _stick(u, v, (0.0, 0.0), (0.0, -0.7 * dial), 0.022)
    hands = np.minimum(hands, _stick(u, v, (0.0, 0.0), (0.5 * dial, 0.2 * dial), 0.026))
    crown = _box(u, v, dial + 0.07, 0, 0.035, 0.05, 0.01)
    trim = np.minimum(np.minimum(ring, hands), crown)
    return SilhouetteParts(cloth=np.minimum(band, face), trim=trim, crease=0.8 * np.clip(1 - np.abs(face - 0.05) / 0.06, 0, 1))


def _cushion(u: Array, v: Array, cut: Array) -> SilhouetteParts:
    width, height = _between(cut, 0.62, 0.84), _between(cut, 0.62, 0.3)
    x, y = u / width, v / height
    # sides bend inwards between the corners, the more the plumper
    pull = _between(cut, 0.1, 0.05)
    body = _box(u, v, 0, 0, width * (1 - pull * (1 - y * y)), height * (1 - pull * (1 - x * x)), 0.07)
    piping = np.abs(body + 0.02) - 0.022
    return SilhouetteParts(cloth=body, trim=piping, crease=0.35 * np.clip(x * x * y * y * 1.6, 0, 1))


SILHOUETTES: dict[str, Callable[[Array, Array, Array], SilhouetteParts]] = {
    "tee": _tee,
    "dress": _dress,
    "trousers": _trousers,
    "skirt": _skirt,
    "bag": _bag,
    "shoe": _shoe,
    "hat": _hat,
    "lamp": _lamp,
    "mug": _mug,
    "chair": _chair,
    "watch": _watch,
    "cushion": _cushion,
}
