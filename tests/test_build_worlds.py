"""The built-in worlds as folders: valid, the same for the same seed, labelled as simulated, never incomplete."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from data import make_world, source
from data.identity import shop_fingerprint
from data.log.shop_folder import load_shop
from data.pictures.store import read_picture
from data.worlds import build as worlds
from data.worlds.defaults import WORLD_NAMES
from run.errors import SettingError, UserError
from run.source_code import modules_of
from tests.made_worlds import SIZES, table


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
    assert set(np.unique(shop.events.rows().action)) == {0, 1, 2, 3}
    images = shop.items["image"].drop_nulls()
    side = 64 if world.name == "shop" else 28
    assert all(read_picture(world, image).shape == (side, side, 3) for image in images[:20])
    assert len(list((world / "images").rglob("*.*"))) == len(images)


def test_no_table_holds_the_truth(world):
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


def test_an_existing_world_is_left_as_it_is(world, monkeypatch, photos):
    monkeypatch.setattr(f"data.worlds.{world.name}.write_world", lambda *_, **__: pytest.fail("again"))
    assert worlds.make_world(world.name, world, **SIZES, seed=3, fashion_dir=photos) == world
    with pytest.raises(UserError, match="holds something else already"):
        worlds.make_world(world.name, world, **SIZES, seed=4, fashion_dir=photos)


def test_a_world_built_by_other_code_is_not_reused(world, monkeypatch, photos):
    monkeypatch.setattr(worlds.World, "code", lambda _: "0123456789abcdef")
    with pytest.raises(UserError, match="holds this world made by other code"):
        worlds.make_world(world.name, world, **SIZES, seed=3, fashion_dir=photos)


def test_each_world_depends_on_its_own_code_and_on_no_other_world():
    covered = {name: modules_of(world.module) for name, world in worlds.WORLDS.items()}
    shared = {"data.worlds.click_rule", "data.worlds.simulator"}
    assert covered["shop"] & covered["fashion"] == shared
    assert {"data.worlds.shop", "data.worlds.shop_pictures", "data.worlds.shop_shapes"} <= covered["shop"]
    assert {"data.worlds.fashion", "data.readers.idx"} <= covered["fashion"]
    assert set(worlds.WORLDS) == set(WORLD_NAMES)


def test_the_world_of_a_run_is_rebuilt_when_its_code_changes(tmp_path, monkeypatch):
    config = source.SourceConfig(data="shop", users=20, items=40, sessions=60)
    first = source.shop_folder(config, tmp_path)
    assert source.shop_folder(config, tmp_path) == first
    monkeypatch.setattr(worlds.World, "code", lambda _: "0123456789abcdef")
    again = source.shop_folder(config, tmp_path)
    assert again != first
    assert shop_fingerprint(again) == shop_fingerprint(first)  # the data are the same, so nothing trained on them is trained again


def test_when_two_processes_build_one_world_the_first_one_is_kept(tmp_path, monkeypatch):
    def write(folder: Path, **_) -> dict[str, int]:
        monkeypatch.setattr("data.worlds.shop.write_world", lambda folder, **_: {"clicks": 1})
        worlds.make_world("shop", tmp_path / "shop")  # the other process
        (folder / "late").touch()
        return {"clicks": 2}

    monkeypatch.setattr("data.worlds.shop.write_world", write)
    assert worlds.make_world("shop", tmp_path / "shop") == tmp_path / "shop"
    assert json.loads((tmp_path / "shop" / "world.json").read_text())["clicks"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


@pytest.mark.parametrize("name", ["shop", "fashion"])
def test_glob_characters_in_a_path_are_ordinary_characters(tmp_path, photos, name):
    folder = tmp_path / "world [x] *?" / "w[1]"
    worlds.make_world(name, folder, users=20, items=40, sessions=60, seed=1, fashion_dir=photos)
    plain = worlds.make_world(name, tmp_path / "plain", users=20, items=40, sessions=60, seed=1, fashion_dir=photos)
    for file in ("impressions", "events", "truth/impressions"):
        assert (folder / f"{file}.parquet").read_bytes() == (plain / f"{file}.parquet").read_bytes()
    assert shop_fingerprint(folder) == shop_fingerprint(plain)


def test_a_world_appears_complete_or_not_at_all(tmp_path, monkeypatch):
    def stops(folder: Path, **_) -> dict[str, int]:
        (folder / "items.parquet").write_bytes(b"half")
        raise UserError("the disk is full")

    monkeypatch.setattr("data.worlds.shop.write_world", stops)
    with pytest.raises(UserError, match="disk is full"):
        worlds.make_world("shop", tmp_path / "shop")
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_never_overwritten(tmp_path):
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


@pytest.mark.parametrize("name", ["shop", "fashion"])
def test_the_command_without_sizes_builds_the_world_that_a_comparison_uses(tmp_path, monkeypatch, name):
    asked = []

    def write(folder: Path, **settings) -> dict[str, int]:
        asked.append(settings)
        return {"impressions": 0, "clicks": 0}

    monkeypatch.setattr(f"data.worlds.{name}.write_world", write)
    world = source.shop_folder(source.SourceConfig(data=name), tmp_path / "run")
    assert make_world.main([name, "--out", str(tmp_path / "made")]) == 0
    assert asked == [{"users": 1000, "items": 3000, "sessions": 60_000, "seed": 0, "fashion_dir": None}] * 2
    assert (world / "world.json").read_text() == (tmp_path / "made" / "world.json").read_text()


def test_the_command_builds_a_world(tmp_path, capsys):
    words = ["shop", "--users", "20", "--items", "40", "--sessions", "60", "--seed", "1", "--out", str(tmp_path / "w")]
    assert make_world.main(words) == 0
    shop = load_shop(tmp_path / "w")
    assert shop.items.height == 40
    sizes = f"20 users, 40 items, 60 sessions, {len(shop.click)} impressions, {shop.click.sum()} clicks"
    assert capsys.readouterr().out == f"{tmp_path / 'w'}: {sizes}\n"
    assert make_world.main([*words[:-3], "2", "--out", str(tmp_path / "w")]) == 2
    assert "holds something else already" in capsys.readouterr().err
