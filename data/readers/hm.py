"""H&M Personalized Fashion Recommendations: every transaction is a purchase, and only its day is known.

Tables may be .csv, as published, or .parquet with the same columns. Photos are `<first 3>/<article_id>.jpg`; where there is none, one of
the product, `<first 3>/<article_id without its last 3 digits>.jpg`, is taken, which colour variants then share.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from data.log.tables import index_of
from data.readers.interactions import Interactions, in_order, numbered
from data.readers.raw_table import Column, RawTable, day, find_file, number, text, unique

NEEDS = "transactions_train.csv and articles.csv (customers.csv where there is one), or .parquet files of the same names"
# columns of articles.csv that describe an article in words; their numeric codes say the same again
FEATURES = {
    "product_group_name": "product_group", "graphical_appearance_name": "pattern", "colour_group_name": "colour",
    "perceived_colour_value_name": "colour_value", "department_name": "department", "index_name": "index_group", "section_name": "section",
    "garment_group_name": "garment_group",
}  # fmt: skip
_ID = 10  # characters of an article's id, the first of which is 0


def read(source: Path, *, min_rating: float, skip: float) -> Interactions:
    """Read a folder of H&M's files.

    Args:
        min_rating: not used; there are no ratings.
        skip: largest share of bad rows that are left out.

    Raises:
        UserError: a file is missing; DataError: a bad row.
    """
    del min_rating
    wanted = (_article(), text("prod_name", optional=True), text("product_type_name", optional=True))
    wanted += tuple(text(name, optional=True) for name in FEATURES)
    articles = RawTable(path=_file(source, "articles"), columns=wanted, skip=skip)
    items = articles.read(unique("article_id"))
    known = items["article_id"]
    bought = RawTable(
        path=_file(source, "transactions_train"), columns=(day("t_dat"), text("customer_id"), _article()), skip=skip, in_blocks=True
    )

    def unknown(block: pl.DataFrame) -> tuple[pl.Series, str, str]:
        fix = f"unknown to {articles.path.name}; add the article, or drop the row (ids have {_ID} characters, a 0 first)"
        return pl.Series(index_of(block["article_id"], known) < 0), "article_id", fix

    users, item, time = [], [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for block in bought.blocks(unknown):
        users.append(block["customer_id"])
        item.append(index_of(block["article_id"], known))
        time.append(block["t_dat"].to_numpy())
    user_ids, user = numbered(users)
    found = in_order(user, np.concatenate(item), np.concatenate(time))
    tables, user_table = [articles, bought], pl.DataFrame({"user_id": user_ids})
    if (customers := _customers(source, skip)) is not None:
        tables.append(customers)
        described = customers.read().unique("customer_id", keep="first", maintain_order=True)
        user_table = user_table.join(described, left_on="user_id", right_on="customer_id", how="left", maintain_order="left")
    features = [pl.col(name).alias(column) for name, column in FEATURES.items()]
    return Interactions(
        items=items.select(item_id="article_id", title="prod_name", category="product_type_name").with_columns(items.select(features)),
        users=user_table, user=found[0], item=found[1], time=found[2], days_only=True, picture_names=picture_names,
        rows={table.path.name: table.rows for table in tables}, refused={table.path.name: table.refused for table in tables},
    )  # fmt: skip


def picture_names(article_id: object) -> list[str]:
    """Where an article's photo may be: its own, then its product's.

    >>> picture_names("0108775015")
    ['010/0108775015.jpg', '010/0108775.jpg']
    """
    name = str(article_id)
    return [f"{name[:3]}/{name}.jpg", f"{name[:3]}/{name[:-3]}.jpg"]


def _article() -> Column:
    """An article's id of ten characters; where a file has it as a number, the zeros before it are put back."""

    def parse(value: pl.Expr) -> pl.Expr:
        return pl.when(value.str.contains(rf"^\d{{1,{_ID}}}$")).then(value.str.zfill(_ID))

    return Column(name="article_id", parse=parse, fix=f"an article_id has {_ID} digits")


def _customers(source: Path, skip: float) -> RawTable | None:
    """Age, membership and newsletters of customers; their postal code is not read."""
    for name in ("customers.csv", "customers.parquet"):
        if (source / name).is_file():
            columns = (text("customer_id"), number("age", 0, 130, optional=True), text("club_member_status", optional=True))
            return RawTable(path=source / name, columns=(*columns, text("fashion_news_frequency", optional=True)), skip=skip)
    return None


def _file(source: Path, name: str) -> Path:
    return find_file(source, (f"{name}.csv", f"{name}.parquet"), NEEDS)
