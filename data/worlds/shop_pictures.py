"""Pictures of the `shop` world: a thing in its style, in front of some background, under some light.

Style comes from `shop_style`; everything in `Scene` is nuisance: drawn at random for each picture, independent of
all else. Pictures are drawn at twice their size with soft edges and averaged down. Colours mix in linear light.
Axes: B pictures, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data.worlds.shop_shapes import SILHOUETTES
from data.worlds.shop_style import Style, pattern_share

SIDE = 64  # pixels of a finished picture

# Lightness, chroma, hue (turns) of what soles, handles, legs and bands are made of:
# oak, walnut, brass, steel, black, white, tan, clay.
_MATERIALS = np.array(
    [
        (0.74, 0.07, 0.20), (0.42, 0.05, 0.15), (0.75, 0.10, 0.24), (0.72, 0.01, 0.70),
        (0.25, 0.01, 0.70), (0.95, 0.01, 0.25), (0.62, 0.08, 0.17), (0.55, 0.09, 0.11),
    ]
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Nuisance of N pictures; each (N,) float32 unless noted."""

    background: np.ndarray  # (N,) int64 index into _BACKGROUNDS
    near: np.ndarray  # (N, 3) float32 linear RGB: the background's first colour
    far: np.ndarray  # (N, 3) float32 its second colour
    layout: np.ndarray  # (N, 3) float32 uniform numbers that place the background's shapes
    rotation: np.ndarray  # radians
    zoom: np.ndarray  # size of an object unit, as a share of half the picture
    shift_x: np.ndarray  # of half the picture
    shift_y: np.ndarray
    mirror: np.ndarray  # -1 or 1
    trim: np.ndarray  # (N, 3) float32 linear RGB of the trim
    phase: np.ndarray  # where the pattern begins, object units
    light_angle: np.ndarray  # radians: where the light comes from
    light_fall: np.ndarray  # how much darker the far side is
    exposure: np.ndarray  # factor on all light
    cast: np.ndarray  # (N, 3) float32 factor on each colour
    shadow: np.ndarray  # how dark the shadow is on the wall, 0..1
    shadow_width: np.ndarray  # its softness in pixels
    noise: np.ndarray  # of the sensor, as a share of white

    def take(self, rows: np.ndarray) -> Scene:
        return Scene(**{name: values[rows] for name, values in vars(self).items()})


def draw_scenes(n: int, rng: np.random.Generator) -> Scene:
    """Backgrounds, poses and lights of `n` pictures."""
    studio = rng.choice(3, n, p=(0.5, 0.33, 0.17))  # white studio, pastel wall, dark wall
    low, high = np.array([0.88, 0.76, 0.34])[studio], np.array([0.98, 0.92, 0.62])[studio]
    lightness = rng.uniform(low, high)
    chroma = rng.uniform(0, 1, n) * np.array([0.02, 0.08, 0.06])[studio]
    hue = rng.random(n)
    other = np.clip(lightness + rng.choice([-1, 1], n) * rng.uniform(0.05, 0.2, n), 0.2, 0.98)
    material = _MATERIALS[rng.integers(len(_MATERIALS), size=n)] + rng.normal(0, (0.03, 0.008, 0.01), (n, 3))
    columns = {
        "near": oklch(lightness, chroma, hue),
        "far": oklch(other, rng.uniform(0, 1, n) * 0.08, (hue + rng.normal(0, 0.12, n)) % 1),
        "layout": rng.random((n, 3)),
        "rotation": np.clip(rng.normal(0, 0.16, n), -0.45, 0.45),
        "zoom": rng.uniform(0.82, 1.04, n),
        "shift_x": rng.uniform(-0.1, 0.1, n),
        "shift_y": rng.uniform(-0.08, 0.08, n),
        "mirror": rng.choice([-1.0, 1.0], n),
        "trim": oklch(material[:, 0], material[:, 1], material[:, 2]),
        "phase": rng.uniform(0, 1, n),
        "light_angle": rng.uniform(0, 2 * np.pi, n),
        "light_fall": rng.uniform(0.05, 0.3, n),
        "exposure": np.exp(rng.normal(0, 0.13, n)),
        "cast": np.exp(rng.normal(0, 0.05, (n, 3))),
        "shadow": rng.uniform(0.1, 0.5, n),
        "shadow_width": rng.uniform(1.5, 4.0, n),
        "noise": rng.uniform(0.004, 0.022, n),
    }
    background = rng.integers(len(_BACKGROUNDS), size=n)
    return Scene(background=background, **{name: values.astype(np.float32) for name, values in columns.items()})


def render(category: str, style: Style, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draw B things of one category: (B, SIDE, SIDE, 3) uint8 sRGB. `rng` gives the sensor's noise."""
    x, y = _grid(2 * SIDE)
    zoom, turn = scene.zoom[:, None, None], scene.rotation[:, None, None]
    left, down = x - scene.shift_x[:, None, None], y - scene.shift_y[:, None, None]
    u = (np.cos(turn) * left + np.sin(turn) * down) * scene.mirror[:, None, None] / zoom
    v = (np.cos(turn) * down - np.sin(turn) * left) / zoom
    soft = 2 / (2 * SIDE) / zoom
    parts = SILHOUETTES[category](u, v, style.cut[:, None, None])

    trim = np.clip(0.5 - parts.trim / soft, 0, 1)
    cloth = np.clip(0.5 - parts.cloth / soft, 0, 1) * (1 - trim)
    second = pattern_share(style, u, v, scene.phase[:, None, None], soft)
    # the rim turns away from us, folds lie in shade
    shade = (1 - 0.3 * np.clip(1 + parts.cloth / 0.11, 0, 1) ** 2) * (1 - 0.55 * parts.crease)
    lit = cloth * shade
    main_colour = oklch(0.27 + 0.66 * style.lightness, 0.19 * style.saturation, style.hue)
    second_colour = oklch(0.27 + 0.66 * style.second_lightness, 0.19 * style.second_saturation, style.second_hue)
    covered = _halve(cloth + trim)
    picture = _halve(lit * (1 - second))[..., None] * main_colour[:, None, None]
    picture += _halve(lit * second)[..., None] * second_colour[:, None, None]
    picture += _halve(trim)[..., None] * scene.trim[:, None, None]
    picture += ((1 - covered) * _shadow(covered, scene))[..., None] * _background(scene)
    return _develop(picture, scene, rng)


def oklch(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """(n,) lightness 0..1, chroma and hue in turns -> (n, 3) float32 linear sRGB.

    Ottosson 2020, "A perceptual color space for image processing". Colours outside the sRGB gamut are made greyer until
    they are inside.
    """
    shown = np.zeros((len(lightness), 3))
    todo = np.ones(len(lightness), dtype=bool)
    for greyer in np.linspace(1, 0, 21):
        a, b = greyer * chroma * np.cos(2 * np.pi * hue), greyer * chroma * np.sin(2 * np.pi * hue)
        long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
        middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
        short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
        red = 4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short
        green = -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short
        blue = -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short
        rgb = np.stack([red, green, blue], axis=1)
        fits = todo & (((rgb >= -1e-4) & (rgb <= 1.0001)).all(axis=1) | (greyer == 0))
        shown[fits], todo = rgb[fits], todo & ~fits
    return np.clip(shown, 0, 1).astype(np.float32)


def _develop(picture: np.ndarray, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Light falls on the entire scene, the sensor adds noise, the file holds sRGB."""
    x, y = _grid(SIDE)
    angle = scene.light_angle[:, None, None]
    light = 1 + scene.light_fall[:, None, None] * (np.cos(angle) * x + np.sin(angle) * y)
    picture *= (light * scene.exposure[:, None, None])[..., None] * scene.cast[:, None, None]
    encoded = _SRGB[(np.clip(picture, 0, 1) * (len(_SRGB) - 1)).astype(np.int32)]
    encoded += rng.standard_normal(picture.shape, dtype=np.float32) * scene.noise[:, None, None, None]
    return (np.clip(encoded, 0, 1) * 255 + 0.5).astype(np.uint8)


def _shadow(covered: np.ndarray, scene: Scene) -> np.ndarray:
    """(B, SIDE, SIDE): the share of light left on the wall, darker on the side away from the light."""
    pixel = np.arange(SIDE, dtype=np.float32)

    def smear(offset: np.ndarray) -> np.ndarray:
        gap = pixel[:, None] - pixel[None, :] - offset[:, None, None]
        weight = np.exp(-0.5 * (gap / scene.shadow_width[:, None, None]) ** 2)
        return weight / (scene.shadow_width[:, None, None] * np.float32(np.sqrt(2 * np.pi)))

    across, down = smear(-3.5 * np.cos(scene.light_angle)), smear(2.5 - 1.5 * np.sin(scene.light_angle))
    return 1 - scene.shadow[:, None, None] * (down @ covered @ across.transpose(0, 2, 1))


def _background(scene: Scene) -> np.ndarray:
    """(B, SIDE, SIDE, 3) linear RGB."""
    x, y = _grid(SIDE)
    share = np.empty((len(scene.background), SIDE, SIDE), dtype=np.float32)
    for kind, draw in enumerate(_BACKGROUNDS):
        rows = np.flatnonzero(scene.background == kind)
        if len(rows):
            share[rows] = draw(x, y, *scene.layout[rows].T[:, :, None, None])
    return scene.near[:, None, None] + share[..., None] * (scene.far - scene.near)[:, None, None]


# Backgrounds: how much of the second colour shows at x, y (H, W). The uniform numbers a, b, c (B, 1, 1) place the shapes.


def _plain(x, y, a, b, c) -> np.ndarray:
    return 0.0 * a + 0.0 * x


def _fading(x, y, a, b, c) -> np.ndarray:
    return np.clip(0.5 + 0.6 * (x * np.cos(6.28 * a) + y * np.sin(6.28 * a)), 0, 1)


def _room(x, y, a, b, c) -> np.ndarray:
    floor = y - 0.2 - 0.5 * a - 0.3 * (b - 0.5) * x
    skirting = 0.6 * np.clip(1 - np.abs(floor + 0.05) * 24, 0, 1)
    return np.clip(0.5 + 24 * floor, 0, 1) * (1 - 0.35 * np.clip(floor, 0, 1)) + skirting


def _disc(x, y, a, b, c) -> np.ndarray:
    return np.clip(0.5 + 24 * (0.55 + 0.35 * a - np.hypot(x - 0.6 * (b - 0.5), y - 0.6 * (c - 0.5))), 0, 1)


def _arch(x, y, a, b, c) -> np.ndarray:
    centre = 0.5 * (b - 0.5)
    top = np.hypot(x - centre, np.minimum(y + 0.25 * c, 0))
    return np.clip(0.5 + 24 * (0.5 + 0.3 * a - top), 0, 1)


def _planks(x, y, a, b, c) -> np.ndarray:
    along, across = np.where(c < 0.5, x, y), np.where(c < 0.5, y, x)
    width = 0.25 + 0.2 * a
    place = across / width + b
    grain = 0.25 * np.sin(9 * along + 17 * np.floor(place)) * np.sin(40 * across + 3 * np.sin(4 * along))
    return np.clip(0.4 + 0.3 * np.sin(5.7 * np.floor(place)) + grain + (np.abs(place % 1 - 0.5) > 0.46), 0, 1)


def _plaster(x, y, a, b, c) -> np.ndarray:
    broad = np.sin(3 * x + 6.28 * a + 2 * np.sin(2 * y)) + np.sin(4 * y + 6.28 * b - 2 * x)
    return np.clip(0.5 + 0.22 * (broad + np.sin(7 * (x + y) + 6.28 * c)), 0, 1)


def _corner(x, y, a, b, c) -> np.ndarray:
    return np.clip(0.5 + 24 * (x * np.cos(6.28 * a) + y * np.sin(6.28 * a) - 0.7 * (b - 0.5)), 0, 1)


_BACKGROUNDS: tuple[Callable[..., np.ndarray], ...] = (_plain, _fading, _room, _disc, _arch, _planks, _plaster, _corner)


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    place = ((np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1).astype(np.float32)
    return place[None, :], place[:, None]


def _halve(image: np.ndarray) -> np.ndarray:
    return (image[:, ::2, ::2] + image[:, 1::2, ::2] + image[:, ::2, 1::2] + image[:, 1::2, 1::2]) / 4


_LINEAR = np.linspace(0, 1, 4096)
_SRGB = np.where(_LINEAR < 0.0031308, 12.92 * _LINEAR, 1.055 * _LINEAR ** (1 / 2.4) - 0.055).astype(np.float32)
