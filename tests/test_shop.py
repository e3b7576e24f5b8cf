"""The rendered shop: only pictures show style, and they do in any scene."""

from __future__ import annotations

import numpy as np
import pytest

from data.worlds import build as worlds
from data.worlds.shop_pictures import draw_scenes, oklch, render
from data.worlds.shop_shapes import SILHOUETTES
from data.worlds.shop_style import PATTERNS, Style, draw_styles, pattern_share
from tests.made_worlds import table


def chance_of(values: np.ndarray, groups: np.ndarray) -> float:
    """Permutation test: how often shuffled groups explain as much of the values' variance as the real ones."""
    codes = np.unique(groups, return_inverse=True)[1]
    count = np.bincount(codes)
    rng = np.random.default_rng(0)

    def explained(values: np.ndarray) -> float:
        return float((np.bincount(codes, values) ** 2 / count).sum())

    centred = values - values.mean()
    return np.mean([explained(rng.permutation(centred)) >= explained(centred) for _ in range(500)])


def test_no_other_column_shows_the_style(tmp_path):
    folder = worlds.make_world("shop", tmp_path / "shop", users=40, items=600, sessions=20, seed=5)
    items, truth = table(folder, "items"), table(folder, "truth/items")
    words = items["title"].fill_null("").str.split(" ")
    columns = {
        "category": items["category"].to_numpy(),
        "brand": items["brand"].to_numpy(),
        "price": items["price"].rank().to_numpy() * 10 // (items.height + 1),
        "material and noun": words.list.slice(1, 2).list.join(" ").to_numpy(),
        "title length": words.list.len().to_numpy(),
        "has picture": items["image"].is_null().to_numpy(),
        "row": np.arange(items.height) * 10 // items.height,
    }
    names = ["hue", "saturation", "lightness", "scale", "cut", "second_hue", "second_lightness"]
    styles = {name: truth[name].to_numpy().astype(float) for name in names}
    styles |= {name: (truth["pattern"] == name).to_numpy().astype(float) for name in PATTERNS}
    # under independence the smallest of the 91 chances is below 1e-3 in one world of eleven; this is one world for good
    for column, groups in columns.items():
        for name, values in styles.items():
            assert chance_of(values, groups) > 0.001, (column, name)


def test_oklch_gives_the_published_values_of_the_primaries():
    # Ottosson's published values for sRGB red, green and blue
    lightness, chroma = np.array([0.62796, 0.86644, 0.45201]), np.array([0.25768, 0.29483, 0.31321])
    colours = oklch(lightness, chroma, np.array([29.234, 142.495, 264.052]) / 360)
    assert colours == pytest.approx(np.eye(3), abs=2e-3)


@pytest.mark.parametrize("category", SILHOUETTES)
def test_an_object_stays_within_its_picture_and_changes_with_its_cut(category):
    place = np.linspace(-1, 1, 64, dtype=np.float32)
    cut = np.linspace(0, 1, 5, dtype=np.float32)[:, None, None]
    u, v = np.broadcast_arrays(place[None, None, :], place[None, :, None])
    parts = SILHOUETTES[category](np.repeat(u, 5, axis=0), np.repeat(v, 5, axis=0), cut)
    inside = np.minimum(parts.cloth, parts.trim) < 0
    assert (inside.mean(axis=(1, 2)) > 0.08).all()
    assert not inside[:, [0, -1]].any()
    assert not inside[:, :, [0, -1]].any()
    tall, wide = inside.any(axis=2).sum(axis=1), inside.any(axis=1).sum(axis=1)
    assert tall[-1] / wide[-1] > tall[0] / wide[0] + 0.2 or category == "cushion"  # a slim cushion lies down
    assert (inside[0] != inside[-1]).mean() > 0.05


def test_pictures_show_the_style_in_any_scene():
    rng = np.random.default_rng(0)
    style, scene = draw_styles(8, rng), draw_scenes(8, rng)
    for change, least in (("lightness", 0.03), ("cut", 0.03), ("pattern", 0.015), ("hue", 0.03)):
        first, second = ({**vars(style)} for _ in range(2))
        for values in (first, second):
            values |= {"saturation": np.full(8, 0.8, np.float32), "lightness": np.full(8, 0.5, np.float32)}
        first[change] = np.full_like(vars(style)[change], 0)
        second[change] = np.full_like(vars(style)[change], 0.5 if change == "hue" else 1)
        for category in SILHOUETTES:
            a, b = (render(category, Style(**values), scene, np.random.default_rng(1)).astype(int) for values in (first, second))
            changed = (np.abs(a - b).max(axis=3) > 30).mean(axis=(1, 2))
            assert np.median(changed) > least, (category, change)


def test_patterns_mix_two_colours():
    style = draw_styles(200, np.random.default_rng(0))
    u, v = np.meshgrid(np.linspace(-1, 1, 64, dtype=np.float32), np.linspace(-1, 1, 64, dtype=np.float32))
    one = np.ones((200, 1, 1), dtype=np.float32)
    share = pattern_share(style, np.tile(u, (200, 1, 1)), np.tile(v, (200, 1, 1)), 0.3 * one, 0.02 * one)
    plain = style.pattern == 0
    assert not share[plain].any()
    assert share.min() >= 0
    assert share.max() <= 1
    assert ((share[~plain].mean(axis=(1, 2)) > 0.2) & (share[~plain].mean(axis=(1, 2)) < 0.7)).all()
