"""Conversion of a large purchase log: seconds and peak memory for 10^7 rows in the layout of H&M's transactions_train.csv.

python benchmarks/convert.py [--rows 10000000] [--quick]

The log is written to a temporary folder first; customers and articles are drawn with popularity falling as 1 / rank. The conversion runs in
its own process, without pictures, with the default nine negatives for each purchase.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(__file__).parent.parent
ARTICLES, CUSTOMERS, DAYS = 100_000, 1_000_000, 730
STEP = 1_000_000  # rows written at a time
COLUMNS = (
    "product_type_name", "product_group_name", "graphical_appearance_name", "colour_group_name", "perceived_colour_value_name",
    "department_name", "index_name", "section_name", "garment_group_name",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--quick", action="store_true", help="a million rows")
    given = parser.parse_args()
    rows = 1_000_000 if given.quick else given.rows
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source", Path(folder) / "shop"
        write_source(source, rows)
        began = time.perf_counter()
        command = [sys.executable, "-m", "data.convert", "hm", str(source), "--out", str(out), "--picture-size", "8"]
        subprocess.run(command, cwd=ROOT, check=True)
        seconds = time.perf_counter() - began
        impressions = pl.scan_parquet(out / "impressions.parquet").select(pl.len()).collect().item()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{rows:,} purchases -> {impressions:,} impressions in {seconds:.0f} s, peak {peak:.2f} GiB")
    print(json.dumps([{"what": "convert hm", "rows": rows, "seconds": round(seconds, 1), "peak_gib": round(peak, 2)}]))


def write_source(folder: Path, rows: int) -> None:
    """articles.csv and transactions_train.csv."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    ids = np.array([f"{number:010d}" for number in 100_000_000 + np.arange(ARTICLES)])
    articles = {"article_id": ids, "prod_name": [f"Top {number}" for number in range(ARTICLES)]}
    articles |= {name: [f"{name} {number}" for number in rng.integers(50, size=ARTICLES)] for name in COLUMNS}
    pl.DataFrame(articles).write_csv(folder / "articles.csv")
    people = pl.Series([f"{number:064x}" for number in rng.permutation(CUSTOMERS)])
    with open(folder / "transactions_train.csv", "wb") as file:
        for first in range(0, rows, STEP):
            count = min(STEP, rows - first)
            day = np.datetime64("2018-09-20") + np.sort(rng.integers(first * DAYS // rows, (first + count) * DAYS // rows + 1, size=count))
            frame = pl.DataFrame(
                {
                    "t_dat": pl.Series(day).cast(pl.Date),
                    "customer_id": people.gather((CUSTOMERS * rng.random(count) ** 2).astype(int)),
                    "article_id": pl.Series(ids).gather((ARTICLES * rng.random(count) ** 3).astype(int)),
                    "price": rng.random(count).round(4),
                    "sales_channel_id": rng.integers(1, 3, size=count),
                }
            )
            frame.write_csv(file, include_header=first == 0)


if __name__ == "__main__":
    main()
