"""Readers of public data sets: the rows of a reading by hand, negatives nobody took, and errors that name file, row and fix."""

import csv
import io
import json
import re
import zlib
from collections import Counter, defaultdict
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.convert import main as convert
from data.readers import raw_table
from data.readers.negatives import Negatives
from data.readers.sessions import sessions_of
from data.readers.table import READERS, reader
from data.validate import main as validate
from eval.compare import main as compare
from run.errors import DataError
from tests.sources import hm, movielens, movielens_dat

MAKERS = {"movielens": movielens, "hm": hm}


def table(path):
    rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"))))
    assert rows
    return rows


def converted(folder, name, *flags):
    source = MAKERS[name](folder / "source")
    assert convert([name, str(source), "--out", str(folder / "shop"), *flags]) == 0
    tables = {part: pl.read_parquet(folder / "shop" / f"{part}.parquet") for part in ("items", "users", "impressions")}
    return source, tables, json.loads((folder / "shop" / "origin.json").read_text())


def test_every_reader_has_a_module_and_a_source_in_these_tests():
    assert set(READERS) == set(MAKERS)
    assert all(callable(reader(name).read) for name in READERS)


def test_movielens_likes_and_films_are_those_of_a_reading_by_hand(tmp_path):
    source, tables, origin = converted(tmp_path, "movielens", "--negatives", "2")
    likes = [row for row in table(source / "ratings.csv") if float(row["rating"]) >= 4]
    clicked = tables["impressions"].filter(click=1)
    assert Counter(clicked.select("user_id", "item_id").rows()) == Counter((int(r["userId"]), int(r["movieId"])) for r in likes)
    by_hand = []
    for film in table(source / "movies.csv"):
        genres = [genre for genre in film["genres"].split("|") if genre != "(no genres listed)"] + [None] * 3
        end = film["title"][-5:-1]
        image = f"{film['movieId']}.jpg" if film["movieId"] != "13" else None
        by_hand.append((int(film["movieId"]), image, film["title"], *genres[:3], float(end) if end.isdigit() else None))
    assert tables["items"].rows() == by_hand
    assert tables["items"].columns == ["item_id", "image", "title", "category", "genre_2", "genre_3", "year"]
    assert origin["rows"] == {"movies.csv": 20, "ratings.csv": len(table(source / "ratings.csv"))}
    assert origin["pictures"] == {"items_with": 19, "items_without": 1, "items_unreadable": 0}


def test_the_two_layouts_of_movielens_give_the_same_shop(tmp_path):
    source = movielens(tmp_path / "csv")
    frames = []
    for name, folder in (("csv", source), ("dat", movielens_dat(tmp_path / "dat", source))):
        assert convert(["movielens", str(folder), "--out", str(tmp_path / f"shop-{name}"), "--pictures", str(source / "posters")]) == 0
        frames.append(pl.read_parquet(tmp_path / f"shop-{name}" / "impressions.parquet"))
    assert frames[0].equals(frames[1])
    assert pl.read_parquet(tmp_path / "shop-dat" / "items.parquet")["title"].str.contains("dé").any()


def test_dat_files_in_utf_8_have_the_same_titles_as_those_in_latin_1(tmp_path):
    source = movielens_dat(tmp_path / "latin", movielens(tmp_path / "csv"))
    titles = []
    for name in ("latin", "utf"):
        titles.append(reader("movielens").read(source, min_rating=4, skip=0).items["title"].to_list())
        content = (source / "movies.dat").read_bytes()
        if name == "latin":
            (source / "movies.dat").write_bytes(content.decode("latin-1").encode())
    assert titles[0] == titles[1]
    assert any("dé" in title for title in titles[0])


def test_hm_purchases_and_articles_are_those_of_a_reading_by_hand(tmp_path):
    source, tables, origin = converted(tmp_path, "hm", "--repeats")
    bought = {(row["customer_id"], row["article_id"], row["t_dat"]) for row in table(source / "transactions_train.csv")}
    clicked = tables["impressions"].filter(click=1)
    days = [datetime.fromtimestamp(second, UTC).date().isoformat() for second in clicked["timestamp"]]
    assert set(zip(clicked["user_id"], clicked["item_id"], days, strict=True)) == bought
    assert len(clicked) == len(bought)
    articles = table(source / "articles.csv")
    assert tables["items"]["item_id"].to_list() == [row["article_id"] for row in articles]
    assert tables["items"]["title"].to_list() == [row["prod_name"] or None for row in articles]
    assert tables["items"]["category"].to_list() == [row["product_type_name"] for row in articles]
    assert all(name.startswith("0") and len(name) == 10 for name in tables["items"]["item_id"])
    ages = {row["customer_id"]: float(row["age"]) if row["age"] else None for row in table(source / "customers.csv")}
    assert dict(tables["users"].select("user_id", "age").rows()) == {user: ages[user] for user in tables["users"]["user_id"]}
    assert origin["days_only"]
    assert origin["sessions"]["by"] == "day"
    for article, image in tables["items"].select("item_id", "image").rows():
        places = [f"{article[:3]}/{name}.jpg" for name in (article, article[:-3])]
        assert image == next((place for place in places if (source / "images" / place).exists()), None)
    assert tables["items"]["image"].n_unique() < len(tables["items"])  # variants share a product's photo


def test_hm_tables_may_be_parquet_with_ids_as_numbers(tmp_path):
    source, tables, _ = converted(tmp_path, "hm")
    for name in ("transactions_train", "articles"):
        frame = pl.read_csv(source / f"{name}.csv").with_columns(pl.col("article_id").cast(pl.Int64))
        frame.write_parquet(source / f"{name}.parquet")
        (source / f"{name}.csv").unlink()
    assert convert(["hm", str(source), "--out", str(tmp_path / "again")]) == 0
    assert pl.read_parquet(tmp_path / "again" / "impressions.parquet").equals(tables["impressions"])


@pytest.mark.parametrize("name", READERS)
def test_a_converted_shop_is_valid_and_can_be_compared(name, tmp_path, capsys):
    source = MAKERS[name](tmp_path / "source", users=40) if name == "movielens" else hm(tmp_path / "source", customers=60)
    assert convert([name, str(source), "--out", str(tmp_path / "shop"), "--negatives", "3"]) == 0
    assert validate([str(tmp_path / "shop")]) == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "negatives sampled: 3 per click, by popularity within" in printed
    flags = ["--preset", "tiny", "--encoders", "none", "--seeds", "1", "--out", str(tmp_path / "run"), "--ctr.epochs", "1"]
    assert compare(["--data", str(tmp_path / "shop"), *flags]) == 0
    assert "Negatives sampled: 3 per click" in " ".join(capsys.readouterr().out.split())
    assert json.loads((tmp_path / "run" / "results.json").read_text())["origin"]["source"] == name


@pytest.mark.parametrize(
    "flags", [(), ("--negatives-by", "uniform"), ("--sessions", "day"), ("--users", "5", "--min-clicks", "3"), ("--since", "2001-09-12")]
)
def test_no_negative_was_ever_taken_and_none_is_in_a_session_twice(flags, tmp_path):
    _, tables, origin = converted(tmp_path, "movielens", "--negatives", "3", *flags)
    shown = tables["impressions"]
    likes = reader("movielens").read(tmp_path / "source", min_rating=4, skip=0)
    took = set(zip(likes.users["user_id"].gather(likes.user), likes.items["item_id"].gather(likes.item), strict=True))
    assert took >= set(shown.filter(click=1).select("user_id", "item_id").rows())
    assert not took & set(shown.filter(click=0).select("user_id", "item_id").rows())
    assert not shown.select("session_id", "item_id").is_duplicated().any()
    assert len(shown.filter(click=0)) == 3 * len(shown.filter(click=1)) - origin["negatives"]["missing"]
    assert shown["session_id"].is_sorted()
    assert shown.group_by("session_id").agg(pl.col("timestamp").n_unique())["timestamp"].max() == 1
    assert shown["timestamp"].is_sorted()


def test_an_item_taken_again_is_shown_once_unless_repeats_are_kept(tmp_path):
    source, tables, origin = converted(tmp_path, "hm")
    first = {}
    for row in table(source / "transactions_train.csv"):
        key = row["customer_id"], row["article_id"]
        first[key] = min(row["t_dat"], first.get(key, row["t_dat"]))
    clicked = tables["impressions"].filter(click=1)
    days = [datetime.fromtimestamp(second, UTC).date().isoformat() for second in clicked["timestamp"]]
    assert dict(zip(clicked.select("user_id", "item_id").rows(), days, strict=True)) == first
    assert len(clicked) == len(first) < len(table(source / "transactions_train.csv"))
    assert origin["options"]["repeats"] is False


def test_a_shop_is_not_overwritten(tmp_path, capsys):
    source, _, _ = converted(tmp_path, "movielens")
    before = (tmp_path / "shop" / "impressions.parquet").read_bytes()
    (source / "ratings.csv").unlink()  # refused before the source is read
    assert convert(["movielens", str(source), "--out", str(tmp_path / "shop"), "--negatives", "2"]) == 2
    assert "holds a converted shop already; nothing is overwritten" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "shop" / "impressions.parquet").read_bytes() == before


def test_genres_that_no_film_has_become_no_column(tmp_path):
    source = movielens(tmp_path / "source")
    edited(source / "movies.csv", lambda text: re.sub(r"\|[^|\n]*", "", text))
    assert convert(["movielens", str(source), "--out", str(tmp_path / "shop")]) == 0
    assert pl.read_parquet(tmp_path / "shop" / "items.parquet").columns == ["item_id", "image", "title", "category", "year"]


def test_missing_pictures_and_missing_negatives_are_warned_of(tmp_path, capsys):
    source, _, origin = converted(tmp_path, "movielens", "--negatives", "1")
    assert origin["negatives"]["missing"] == 0
    assert "warning" not in capsys.readouterr().err
    (source / "posters").rename(tmp_path / "elsewhere")
    assert convert(["movielens", str(source), "--out", str(tmp_path / "again"), "--negatives", "50"]) == 0
    warnings = " ".join(capsys.readouterr().err.split())
    assert f"no item has a picture: there is neither {source / 'images'} nor {source / 'posters'}" in warnings
    assert "negatives were not found: too few other items" in warnings


def test_a_folder_without_a_picture_of_any_item_is_refused(tmp_path, capsys):
    source = hm(tmp_path / "source")
    assert convert(["hm", str(source), "--out", str(tmp_path / "shop"), "--pictures", str(source)]) == 2
    assert "has no picture of any item (such as 010/0108775000.jpg)" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "shop").exists()


def test_an_origin_that_lacks_a_part_is_refused_by_name(tmp_path, capsys):
    converted(tmp_path, "movielens")
    path = tmp_path / "shop" / "origin.json"
    path.write_text(json.dumps({"source": "movielens", "negatives": {"per_positive": 9}, "rows_refused": {}}))
    assert validate([str(tmp_path / "shop")]) == 2
    assert "not written by data.convert" in " ".join(capsys.readouterr().err.split())


def test_the_same_seed_gives_the_same_folder_and_another_other_negatives(tmp_path):
    source = movielens(tmp_path / "source")
    frames = []
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert convert(["movielens", str(source), "--out", str(tmp_path / name), "--seed", seed]) == 0
        frames.append((tmp_path / name / "impressions.parquet").read_bytes())
    assert frames[0] == frames[1] != frames[2]


def test_negatives_by_popularity_are_as_frequent_as_what_others_took_at_that_time():
    time = np.repeat([0, 1000], [300, 300])
    item = np.concatenate([np.repeat([0, 1, 2], [200, 50, 50]), np.repeat([3, 4], [100, 200])])
    sampler = Negatives(time=time, item=item, taken=np.array([-1]), items=5, by="popularity", window=100, seed=0)
    many = 4000
    drawn = sampler.draw(np.zeros(many, int), np.arange(many), np.zeros(many, int), np.arange(many), 1)[:, 0]
    share = np.bincount(drawn, minlength=5) / many
    np.testing.assert_allclose(share, [4 / 6, 1 / 6, 1 / 6, 0, 0], atol=4 * np.sqrt(0.25 / many))


def test_a_user_who_took_everything_gets_no_negative():
    sampler = Negatives(time=np.zeros(3, int), item=np.arange(3), taken=np.arange(3), items=3, by="uniform", window=0, seed=0)
    assert sampler.draw(np.zeros(2, int), np.arange(2), np.zeros(2, int), np.arange(2), 2).tolist() == [[-1, -1]] * 2


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300_000)), min_size=1, max_size=40), st.sampled_from(["count", "gap", "day"]))
@settings(deadline=None)
def test_sessions_are_those_of_a_loop_over_each_users_interactions(rows, by):
    user, time = (np.array(column) for column in zip(*rows, strict=True))
    found = sessions_of(user, time, by=by, size=3, gap=20_000)
    by_user = defaultdict(list)
    for place in sorted(range(len(rows)), key=lambda place: (rows[place][1], place)):
        by_user[rows[place][0]].append(place)
    wanted = []
    for places in by_user.values():
        for number, place in enumerate(places):
            moment, last = rows[place][1], rows[places[number - 1]][1]
            new = number == 0 or {"count": number % 3 == 0, "gap": moment - last > 20_000, "day": moment // 86_400 != last // 86_400}[by]
            if new:
                wanted.append([])
            wanted[-1].append(place)
    made = [sorted(found.ranking[found.session == session].tolist()) for session in range(len(found.time))]
    assert sorted(made) == sorted(sorted(places) for places in wanted)
    assert found.time.tolist() == [int(time[found.ranking[found.session == session]].min()) for session in range(len(found.time))]
    assert (np.diff(found.time) >= 0).all()


def test_pictures_are_shrunk_and_unreadable_ones_listed(tmp_path):
    source = movielens(tmp_path / "source")
    (source / "posters" / "7.jpg").write_bytes(b"no picture")
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        for kind, body in ((b"IHDR", (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"), (b"IEND", b""))
    )
    (source / "posters" / "10.jpg").write_bytes(bomb)
    assert convert(["movielens", str(source), "--out", str(tmp_path / "shop"), "--picture-size", "32"]) == 0
    with Image.open(tmp_path / "shop" / "images" / "1.jpg") as shrunk:
        assert sorted(shrunk.size) == [32, 43]
    listed = table(tmp_path / "shop" / "unreadable_pictures.csv")
    assert [row["file"] for row in listed] == ["10.jpg", "7.jpg"]
    items = pl.read_parquet(tmp_path / "shop" / "items.parquet")
    assert items.filter(pl.col("item_id").is_in([7, 10]))["image"].to_list() == [None, None]


def test_items_without_a_picture_can_be_left_out(tmp_path):
    _, tables, _ = converted(tmp_path, "movielens", "--only-with-pictures")
    assert tables["items"]["image"].null_count() == 0
    assert 13 not in tables["items"]["item_id"]
    assert 13 not in tables["impressions"]["item_id"]


def edited(path, change):
    text = path.read_bytes().decode("utf-8-sig")
    path.write_bytes(change(text).encode(errors="surrogateescape"))


def with_row(line):
    return lambda text: text.rstrip("\r\n") + "\n" + line + "\n"


DAMAGE = {
    "movielens": [
        ("ratings.csv", with_row("x,1,4.0,1000"), r"ratings.csv: row 168, column 'userId': value 'x'; give an integer"),
        ("ratings.csv", with_row("7,1,11,1000"), r"ratings.csv: row 168, column 'rating': value '11'; give a number from 0.5 to 5"),
        ("ratings.csv", with_row("7,1,nan,1000"), r"column 'rating': value 'nan'; give a number"),
        ("ratings.csv", with_row("7,1,4.0,-5"), r"column 'timestamp': value '-5'; give Unix seconds"),
        ("ratings.csv", with_row("7,1,4.0,1700000000000"), r"column 'timestamp': value '1700000000000'; .*not milliseconds"),
        ("ratings.csv", with_row("7,1"), r"row 168, column 'rating': is empty; give a number"),
        ("ratings.csv", with_row("7,1,4.0,1000,9"), r"row 168: has 5 fields, the header 4"),
        ("ratings.csv", with_row("7,2,4.0,1000"), r"row 168, column 'movieId': value '2'; unknown to movies.csv; add the film"),
        ("ratings.csv", lambda text: text.replace("rating,", "stars,", 1), r"column 'rating': no such column; there are: userId, movieId"),
        ("ratings.csv", lambda text: text.split("\n")[0] + "\n", r"ratings.csv: has no rows"),
        ("ratings.csv", with_row("7,1,4.0,\udcff"), r"ratings.csv: row 168: is not utf-8 text"),
        ("movies.csv", with_row("1,again (1990),Drama"), r"movies.csv: row 20, column 'movieId': value '1'; is in an earlier row too"),
        ("movies.csv", with_row("999,,Drama"), r"movies.csv: row 20, column 'title': is empty; every row needs one"),
    ],
    "hm": [
        ("transactions_train.csv", with_row("16.09.2020,a,0108775000,1,2"), r"column 't_dat': value '16.09.2020'; give a date"),
        ("transactions_train.csv", with_row("1969-01-01,a,0108775000,1,2"), r"column 't_dat': value '1969-01-01'; give a date from 1970"),
        ("transactions_train.csv", with_row("2020-09-16,,0108775000,1,2"), r"column 'customer_id': is empty; every row needs one"),
        ("transactions_train.csv", with_row("2020-09-16,a,x,1,2"), r"column 'article_id': value 'x'; an article_id has 10 digits"),
        (
            "transactions_train.csv",
            with_row("2020-09-16,a,0999999999,1,2"),
            r"value '0999999999'; unknown to articles.csv; add the article",
        ),
        ("transactions_train.csv", with_row("2020-09-16"), r"column 'customer_id': is empty"),
        ("transactions_train.csv", with_row("2020-09-16,a,0108775000,1,2,3"), r"has 6 fields, the header 5"),
        ("transactions_train.csv", lambda text: text.replace("t_dat", "day", 1), r"column 't_dat': no such column; there are: day"),
        ("transactions_train.csv", lambda text: text.split("\n")[0] + "\n", r"transactions_train.csv: has no rows"),
        ("articles.csv", lambda text: text + text.split("\n")[1] + "\n", r"articles.csv: row 24, column 'article_id': .*earlier row too"),
        ("articles.csv", lambda text: text.replace("section_name", "section", 1), r"articles.csv: column 'section_name': no such column"),
        (
            "customers.csv",
            with_row("z,,1,ACTIVE,NONE,400,x"),
            r"customers.csv: row 30, column 'age': value '400'; give a number from 0 to 130",
        ),
    ],
}


@pytest.mark.parametrize(("name", "number"), [(name, number) for name in DAMAGE for number in range(len(DAMAGE[name]))])
def test_damage_ends_in_an_error_that_names_file_row_and_fix_and_leaves_nothing(name, number, tmp_path, capsys):
    file, change, expected = DAMAGE[name][number]
    source = MAKERS[name](tmp_path / "source")
    edited(source / file, change)
    assert convert([name, str(source), "--out", str(tmp_path / "shop")]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()[-1:]) == 1
    assert re.search(expected, error), error
    assert not (tmp_path / "shop").exists()


def test_bad_rows_can_be_left_out_and_are_counted(tmp_path):
    source = movielens(tmp_path / "source")
    edited(source / "ratings.csv", with_row("7,2,4.0,1000\n7,1,9,1000"))
    arguments = ["movielens", str(source), "--out", str(tmp_path / "shop")]
    assert convert([*arguments, "--skip-bad-rows", "0.02"]) == 0
    assert json.loads((tmp_path / "shop" / "origin.json").read_text())["rows_refused"] == {"movies.csv": 0, "ratings.csv": 2}
    assert convert([*arguments, "--skip-bad-rows", "0.001"]) == 2


def test_a_repeated_id_is_a_bad_row_too(tmp_path):
    source = hm(tmp_path / "source")
    edited(source / "articles.csv", lambda text: text.replace("\n", "\nx" + "," * 12 + "\n", 1) + text.split("\n")[1] + "\n")
    assert convert(["hm", str(source), "--out", str(tmp_path / "shop"), "--skip-bad-rows", "0.1"]) == 0
    assert json.loads((tmp_path / "shop" / "origin.json").read_text())["rows_refused"]["articles.csv"] == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["movielens", "{}/absent", "--out", "{}/s"], "absent: no such folder"),
        (["movielens", "{}/a.zip", "--out", "{}/s"], "a.zip: an archive: unpack it"),
        (["hm", "{}/source", "--out", "{}/s"], "there is no articles.csv or articles.parquet"),
        (["netflix", "{}/source", "--out", "{}/s"], "setting 'name': value 'netflix'; there are: movielens, hm"),
        (["movielens", "{}/source", "--out", "{}/s", "--since", "2030-01-01"], "--since leaves nothing"),
        (["movielens", "{}/source", "--out", "{}/s", "--since", "soon"], "give a date as YYYY-MM-DD"),
        (["movielens", "{}/source", "--out", "{}/s", "--negatives-window", "3y"], "give a whole number and s, m, h, d or w"),
        (["movielens", "{}/source", "--out", "{}/s", "--pictures", "{}/none"], "none: no such folder"),
        (["movielens", "{}/source", "--out", "{}/source"], "is not empty, and holds no converted shop"),
        (["movielens", "{}/source", "--out", "{}/s", "--min-rating", "6"], "no rating of 6 or more"),
    ],
)
def test_wrong_flags_and_missing_files_are_named(arguments, expected, tmp_path, capsys):
    movielens(tmp_path / "source")
    assert convert([part.format(tmp_path) for part in arguments]) == 2
    assert expected in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "s").exists()


def test_describe_prints_what_a_source_holds_and_writes_nothing(tmp_path, capsys):
    source = hm(tmp_path / "source")
    assert convert(["hm", str(source), "--describe"]) == 0
    assert "transactions_train.csv" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"source"}
    assert convert(["hm", str(source)]) == 2
    assert "--out is missing" in capsys.readouterr().err


@pytest.mark.parametrize("block", [7, 40, 1 << 25])
@pytest.mark.parametrize("end", ["", "\n", "\n\n\n", "\r\n\r\n"])
def test_empty_lines_at_the_end_are_no_rows_and_one_in_between_is_a_bad_one(end, block, tmp_path, monkeypatch):
    monkeypatch.setattr(raw_table, "BLOCK", block)
    file = tmp_path / "t.csv"
    columns = (raw_table.integer("a"), raw_table.integer("b"))
    lines = ["a,b", *(f"{row},{row + 1}" for row in range(20))]
    file.write_text("\n".join(lines) + end, newline="")
    for in_blocks in (True, False):
        found = raw_table.RawTable(path=file, columns=columns, in_blocks=in_blocks).read()
        assert found.rows() == [(row, row + 1) for row in range(20)]
    file.write_text("\n".join([*lines[:8], "", *lines[8:]]) + end, newline="")
    for in_blocks in (True, False):
        with pytest.raises(DataError, match=r"t\.csv: row 7, column 'a'"):
            raw_table.RawTable(path=file, columns=columns, in_blocks=in_blocks).read()
