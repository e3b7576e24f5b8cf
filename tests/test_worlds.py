"""The built-in worlds: the same seed gives the same bytes, only pictures tell style, and time runs forwards."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from data import behaviour, fashion_world, make_world, sessions, worlds
from data.fashion_world import CLASSES, LATE_CLASS, measure, taste_points
from data.idx import read_idx
from data.pictures import read_picture
from data.shop_folder import load_shop
from data.shop_pictures import draw_scenes, oklch, render
from data.shop_shapes import SILHOUETTES
from data.shop_style import PATTERNS, Style, draw_styles, pattern_share
from data.shop_words import LATE_THING
from metrics.auc import auc
from metrics.gauc import gauc
from run.errors import DataError, SettingError, UserError

SIZES = {"users": 150, "items": 240, "sessions": 4000}
LATEST_OPENING = behaviour.START + behaviour.LATE_CATEGORY_AT * behaviour.SPAN


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Files like Fashion-MNIST's, with 700 grey rectangles for photos."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("photos")
    for part, count in (("train", 600), ("t10k", 100)):
        pictures = np.zeros((count, 28, 28), dtype=np.uint8)
        for picture in pictures:
            width, height, grey = rng.integers(4, 14), rng.integers(4, 14), rng.integers(60, 256)
            picture[14 - height : 14 + height, 14 - width : 14 + width] = grey
            picture[14 - height : 14 + height : 3, 14 - width : 14 + width] //= int(rng.integers(1, 4))
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", pictures)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)
    return folder


@pytest.fixture(scope="module", params=["shop", "fashion"])
def world(request, tmp_path_factory, photos) -> Path:
    folder = tmp_path_factory.mktemp("worlds") / request.param
    return worlds.make_world(request.param, folder, **SIZES, seed=3, fashion_dir=photos)


def write_idx(path: Path, values: np.ndarray) -> None:
    content = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def table(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / f"{name}.parquet")


def log_with_truth(folder: Path) -> pl.DataFrame:
    """Impressions with their probability and their item's launch."""
    truth = table(folder, "truth/items").select("item_id", "launch")
    log = table(folder, "impressions").hstack(table(folder, "truth/impressions"))
    return log.join(truth, on="item_id", how="left", maintain_order="left")


def style_alone(folder: Path, log: pl.DataFrame) -> np.ndarray:
    """Minus the distance from each impression's item to the nearest of its user's looks."""
    people, items = table(folder, "truth/users"), table(folder, "truth/items")
    looks = np.stack([people[f"look_{place}"].to_numpy() for place in (1, 2, 3)], axis=1)
    user = log["user_id"].to_numpy() - people["user_id"][0]
    item = log["item_id"].to_numpy() - items["item_id"][0]
    return -np.linalg.norm(looks[user] - items["taste"].to_numpy()[item][:, None], axis=2).min(axis=1)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path, photos):
    small = {"users": 40, "items": 60, "sessions": 300}
    for name in ("shop", "fashion"):
        made = [
            worlds.make_world(name, tmp_path / f"{name}-{label}", **small, seed=seed, fashion_dir=photos)
            for label, seed in (("a", 1), ("b", 1), ("c", 2))
        ]
        files = sorted(path.relative_to(made[0]) for path in made[0].rglob("*") if path.is_file())
        assert len(files) > 60
        for file in files:
            assert (made[0] / file).read_bytes() == (made[1] / file).read_bytes(), file
        for file in ("items.parquet", "users.parquet", "impressions.parquet", "truth/items.parquet"):
            assert not pl.read_parquet(made[0] / file).equals(pl.read_parquet(made[2] / file)), file
        picture = table(made[0], "items")["image"].drop_nulls()[0]
        assert (made[0] / "images" / picture).read_bytes() != (made[2] / "images" / picture).read_bytes()


def test_a_world_is_a_valid_shop_folder(world):
    shop = load_shop(world)
    assert shop.split_is_ordered
    assert shop.items.height == SIZES["items"]
    assert len(shop.session_user) == SIZES["sessions"]
    assert (shop.session_category == shop.item_category[shop.item][np.unique(shop.session, return_index=True)[1]]).all()
    assert set(np.unique(shop.events.action)) == {0, 1, 2, 3}
    images = shop.items["image"].drop_nulls()
    side = 64 if world.name == "shop" else 28
    assert all(read_picture(world, image).shape == (side, side, 3) for image in images[:20])
    assert len(list((world / "images").rglob("*.*"))) == len(images)


def test_the_truth_stands_in_no_table(world):
    columns = ["item_id", "image", "title", "category", "brand", "price"]
    assert table(world, "items").columns == [name for name in columns if world.name == "shop" or name != "brand"]
    assert table(world, "users").columns == ["user_id", "age_band", "region", "device"]
    log = ["session_id", "user_id", "item_id", "timestamp", "click", "position", "query", "category"]
    assert table(world, "impressions").columns == log
    assert table(world, "events").columns == ["user_id", "item_id", "timestamp", "action"]


def test_the_world_says_that_its_clicks_are_simulated(world):
    about = json.loads((world / "world.json").read_text())
    assert about["simulated"] is True
    assert "simulated" in about["about"]
    assert about["impressions"] == table(world, "impressions").height
    assert about["clicks"] == table(world, "impressions")["click"].sum()
    assert {key: about[key] for key in (*SIZES, "name", "seed")} == {**SIZES, "name": world.name, "seed": 3}


def test_about_one_impression_in_seven_is_clicked(world):
    assert 0.13 < table(world, "impressions")["click"].mean() < 0.17


def test_clicks_are_drawn_from_the_truth_row_by_row(world):
    log = log_with_truth(world).sort("probability")
    for part in np.array_split(np.arange(log.height), 10):
        probability, click = log["probability"].to_numpy()[part], log["click"].to_numpy()[part]
        error = np.sqrt((probability * (1 - probability)).sum()) / len(part)
        assert abs(click.mean() - probability.mean()) < 4 * error


def test_the_truth_ranks_well_and_style_does_most_of_it(world):
    log = log_with_truth(world)
    click, session, probability = log["click"].to_numpy(), log["session_id"].to_numpy(), log["probability"].to_numpy()
    style = style_alone(world, log)
    rest = np.log(probability / (1 - probability)).astype(float)
    rest -= np.polyfit(style, rest, 1)[0] * style
    assert 0.72 < gauc(click, probability, session).value < 0.82
    assert gauc(click, style, session).value > 0.66
    assert gauc(click, style, session).value > gauc(click, rest, session).value
    assert 0.75 < auc(click, probability) < 0.84


def test_nothing_is_shown_before_its_launch(world):
    log = log_with_truth(world)
    assert (log["timestamp"] >= log["launch"]).all()
    late = (table(world, "truth/items")["launch"] > behaviour.START).mean()
    assert 0.15 < late < 0.4  # a fifth, and the late category


def test_one_category_comes_late(world):
    log = table(world, "impressions")
    newcomer = log["category"] == (LATE_THING if world.name == "shop" else LATE_CLASS)
    assert newcomer.sum() > 100
    assert log.filter(newcomer)["timestamp"].min() >= LATEST_OPENING
    first = log.filter(~newcomer).group_by("category").agg(pl.col("timestamp").min())["timestamp"]
    assert (first < behaviour.START + 0.2 * behaviour.SPAN).all()


def test_a_session_has_one_user_one_search_and_different_items(world):
    log = table(world, "impressions")
    each = log.group_by("session_id", maintain_order=True).agg(
        *(pl.col(name).n_unique().alias(name) for name in ("user_id", "query", "category", "item_id")),
        pl.len().alias("shown"),
        (pl.col("position") == pl.int_range(1, pl.len() + 1)).all().alias("in_order"),
        (pl.col("timestamp").diff().fill_null(0).is_between(0, 2)).all().alias("steady"),
        pl.col("timestamp").min().alias("time"),
    )
    assert (each["user_id"] == 1).all()
    assert (each["query"] == 1).all()
    assert (each["category"] == 1).all()
    assert (each["item_id"] == each["shown"]).all()
    assert each["shown"].max() == 12
    assert (each["shown"] >= 8).mean() > 0.8  # fewer where a category, here of some 24 items, is short of them
    assert each["in_order"].all()
    assert each["steady"].all()
    assert each["time"].is_sorted()
    assert each["session_id"].to_list() == list(range(1_000_000, 1_000_000 + SIZES["sessions"]))


def test_events_are_every_click_and_what_follows_from_it(world):
    events = table(world, "events")
    clicked = table(world, "impressions").filter(pl.col("click") == 1).select("user_id", "item_id", "timestamp")
    keys = ["timestamp", "user_id", "item_id"]
    found = events.filter(pl.col("action") == "click").select(clicked.columns)
    assert found.sort(keys).equals(clicked.sort(keys))
    assert events["timestamp"].is_sorted()
    share = {name: (events["action"] == name).sum() / clicked.height for name in ("cart", "uncart", "purchase")}
    assert 0.2 < share["cart"] < 0.3
    assert 0 < share["uncart"] < 0.1
    assert 0.04 < share["purchase"] < 0.12
    for earlier, later, longest in (("click", "cart", 90), ("cart", "purchase", 86_400), ("cart", "uncart", 6 * 3600)):
        before = events.filter(pl.col("action") == earlier).with_columns(seen=pl.col("timestamp"))
        after = events.filter(pl.col("action") == later)
        joined = after.join_asof(before, on="timestamp", by=["user_id", "item_id"], check_sortedness=False)
        assert joined["seen"].null_count() == 0
        assert (joined["timestamp"] - joined["seen"] <= longest).all()


def test_chunks_leave_no_seam(tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "CHUNK", 64)
    folder = worlds.make_world("shop", tmp_path / "shop", users=20, items=60, sessions=300, seed=0)
    log = log_with_truth(folder)
    assert log["session_id"].unique(maintain_order=True).to_list() == list(range(1_000_000, 1_000_300))
    assert not (folder / "parts").exists()
    assert log["probability"].null_count() == 0


def chance_of(values: np.ndarray, groups: np.ndarray) -> float:
    """Permutation test: how often shuffled groups explain as much of the values' variance as these groups do."""
    codes = np.unique(groups, return_inverse=True)[1]
    count = np.bincount(codes)
    rng = np.random.default_rng(0)

    def explained(values: np.ndarray) -> float:
        return float((np.bincount(codes, values) ** 2 / count).sum())

    centred = values - values.mean()
    return np.mean([explained(rng.permutation(centred)) >= explained(centred) for _ in range(500)])


def test_style_stands_in_no_other_column(tmp_path):
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


def test_measured_tastes_are_alike_in_every_class(photos):
    pixels, label = fashion_world.read_fashion(photos)
    places = taste_points(measure(pixels), label.astype(int))
    for index in range(len(CLASSES)):
        assert np.abs(places[label == index].mean(axis=0)).max() < 0.1


def test_a_plain_centred_square_measures_as_one():
    square = np.zeros((2, 28, 28), dtype=np.uint8)
    square[0, 9:19, 9:19] = 204
    square[1, 9:19, 4:24] = 102
    found = measure(square)
    assert found["brightness"] == pytest.approx([204 / 255, 102 / 255])
    assert found["contrast"] == pytest.approx([0, 0], abs=1e-6)
    assert found["asymmetry"] == pytest.approx([0, 0], abs=1e-6)
    assert found["balance"] == pytest.approx([13.5, 13.5])
    # the spread of n equally likely places is sqrt((n^2 - 1) / 12)
    assert found["width"] == pytest.approx([np.sqrt(99 / 12), np.sqrt(399 / 12)])
    assert found["height"] == pytest.approx([np.sqrt(99 / 12)] * 2)


def test_oklch_knows_the_primaries():
    # Ottosson's published values for sRGB red, green and blue
    lightness, chroma = np.array([0.62796, 0.86644, 0.45201]), np.array([0.25768, 0.29483, 0.31321])
    colours = oklch(lightness, chroma, np.array([29.234, 142.495, 264.052]) / 360)
    assert colours == pytest.approx(np.eye(3), abs=2e-3)


@pytest.mark.parametrize("category", SILHOUETTES)
def test_a_thing_stays_in_its_picture_and_changes_with_its_cut(category):
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
            a, b = (
                render(category, Style(**values), scene, np.random.default_rng(1)).astype(int)
                for values in (first, second)
            )
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


def test_a_world_that_is_there_is_left_as_it_is(world, monkeypatch, photos):
    monkeypatch.setitem(worlds.WORLDS, world.name, worlds.World(write=lambda *_, **__: pytest.fail("again"), about=""))
    assert worlds.make_world(world.name, world, **SIZES, seed=3, fashion_dir=photos) == world
    with pytest.raises(UserError, match="holds something else already"):
        worlds.make_world(world.name, world, **SIZES, seed=4, fashion_dir=photos)


def test_a_world_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def stops(folder: Path, **_) -> dict[str, int]:
        (folder / "items.parquet").write_bytes(b"half")
        raise UserError("the disk is full")

    left = tmp_path / ".shop.making-999999999"  # of a killed process
    left.mkdir()
    monkeypatch.setitem(worlds.WORLDS, "shop", worlds.World(write=stops, about=""))
    with pytest.raises(UserError, match="disk is full"):
        worlds.make_world("shop", tmp_path / "shop")
    assert list(tmp_path.iterdir()) == []


def test_other_data_is_never_overwritten(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else already"):
        worlds.make_world("shop", tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize("setting", [{"users": 0}, {"items": 39}, {"sessions": -1}, {"seed": -1}])
def test_impossible_sizes_are_refused(tmp_path, setting):
    with pytest.raises(SettingError, match=f"'{next(iter(setting))}'"):
        worlds.make_world("shop", tmp_path / "shop", **setting)
    with pytest.raises(SettingError, match="there are: shop, fashion"):
        worlds.make_world("shoop", tmp_path / "shop")


def test_the_command_makes_a_world(tmp_path, capsys):
    words = ["shop", "--users", "20", "--items", "40", "--sessions", "60", "--seed", "1", "--out", str(tmp_path / "w")]
    assert make_world.main(words) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "w")
    assert load_shop(tmp_path / "w").items.height == 40
    assert make_world.main([*words[:-3], "2", "--out", str(tmp_path / "w")]) == 2
    assert "holds something else already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["plain", "zipped.gz"])
def test_idx_files_come_back(tmp_path, name):
    values = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    write_idx(tmp_path / name, values)
    assert (read_idx(tmp_path / name, axes=3) == values).all()


IDX = bytes([0, 0, 8, 1]) + struct.pack(">I", 4) + b"\1\2\3\4"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "magic number"),
        (IDX[:6], "within its header"),
        (IDX[:-1], "3 bytes of content, its header says 4"),
        (IDX + b"\5", "goes on after"),
        (bytes([0, 0, 13, 1]) + IDX[4:], "value '00000d01'; not the magic number 00000801"),
        (bytes([0, 0, 8, 3]) + struct.pack(">III", 2**32 - 1, 2**32 - 1, 2**32 - 1), "magic number"),
        (IDX[:4] + struct.pack(">I", 2**32 - 1), "claims 4,294,967,295 bytes"),
        (gzip.compress(IDX)[:-6], "damaged or cut off"),
        (gzip.compress(IDX)[:-8] + bytes(8), "damaged or cut off"),
        (b"\x1f\x8b" + bytes(20), "damaged or cut off"),
        (gzip.compress(b"<html>moved</html>"), "magic number"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, content, complaint):
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as refusal:
        read_idx(path, axes=1)
    assert str(path) in str(refusal.value)
    with pytest.raises(DataError, match="no such file"):
        read_idx(tmp_path / "absent", axes=1)


def test_photos_that_do_not_fit_their_labels_are_refused(tmp_path, photos):
    for file in photos.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.zeros(99, dtype=np.uint8))
    with pytest.raises(DataError, match=r"t10k-labels.*value 99"):
        fashion_world.read_fashion(tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.full(100, 10, dtype=np.uint8))
    with pytest.raises(DataError, match="classes are 0 to 9"):
        fashion_world.read_fashion(tmp_path)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", np.zeros((100, 32, 32), dtype=np.uint8))
    with pytest.raises(DataError, match="photos are 28 x 28"):
        fashion_world.read_fashion(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"holds no train-labels-idx1-ubyte\.gz"):
        fashion_world.read_fashion(tmp_path)


def test_more_items_than_photos_are_refused(tmp_path, photos):
    with pytest.raises(SettingError, match="there are 700 photos"):
        worlds.make_world("fashion", tmp_path / "fashion", items=701, fashion_dir=photos)


def test_absent_photos_name_all_three_ways_to_get_them(tmp_path, monkeypatch):
    def no_network(cache: Path) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(fashion_world, "INSTALLED", tmp_path / "absent")
    monkeypatch.setattr(fashion_world, "_download", no_network)
    with pytest.raises(UserError) as refusal:
        worlds.make_world("fashion", tmp_path / "fashion")
    for way in ("apt-get install dataset-fashion-mnist", "--fashion-dir DIR", "network is unreachable"):
        assert way in str(refusal.value)


def test_a_downloaded_copy_is_used_where_nothing_is_installed(tmp_path, monkeypatch, photos):
    monkeypatch.setattr(fashion_world, "INSTALLED", tmp_path / "absent")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def download(cache: Path) -> None:
        (cache / "FashionMNIST").mkdir(parents=True)
        (cache / "FashionMNIST" / "raw").symlink_to(photos)

    monkeypatch.setattr(fashion_world, "_download", download)
    assert len(fashion_world.read_fashion(None)[0]) == 700
