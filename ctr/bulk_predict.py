"""Click probabilities of a day's impressions: python -m ctr.bulk_predict --run RUN --data DIR_OR_PARQUET --out DIR.

Parts are predicted and written one by one; a killed call resumes with the next part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from run.config import parse, positive
from run.errors import UserError, entry

ABOUT = """Predict all impressions of a shop folder, or of a parquet file of sessions, from any time, of the shop that the model knows.
Such a file needs session_id, user_id, item_id, timestamp and the columns that the model was trained with; a column `click` is not needed
and not read. Its users may be new; its items are those of the shop.

Written into --out:
  part-00000.parquet, ...  row (in impressions.parquet, from 0) and score (the probability of a click), ascending within a part
  manifest.json            what was predicted with which weights, and how many parts there are"""


@dataclass(frozen=True, kw_only=True)
class BulkConfig:
    """Settings of predicting a day."""

    run: Path = Path("runs/ctr")  # run folder of ctr.train
    data: str = ""  # shop folder, or a .parquet file of impressions; empty: the run's own log
    out: Path = Path("runs/bulk")  # folder of the parts; the same command resumes where a killed one stopped
    embeddings: Path | None = None  # embeddings folder of the shop's items; None: the run's own
    shop: str = ""  # shop folder whose items, users and events a parquet file belongs to; empty: the run's own
    part_rows: int = 1_000_000  # about how many impressions a part has: sessions are not cut, and memory is bounded by a part
    threads: int = 0  # CPU threads; 0: torch's choice. the same number gives bit-equal scores

    def __post_init__(self):
        positive("part_rows", self.part_rows)


@entry
def main(argv: list[str] | None = None) -> None:
    """Parse flags and predict what is not there yet."""
    config = parse(BulkConfig, argv, prog="python -m ctr.bulk_predict", description=ABOUT)
    from ctr.inputs.impression_parts import log_of
    from ctr.serving.bulk import bulk_predict
    from ctr.serving.trained_run import open_run
    from run.folder import locked

    is_file = config.data.endswith(".parquet")
    if not is_file and Path(config.data).is_file():
        raise UserError(f"--data {config.data}: not a .parquet file; give a shop folder or a .parquet file")
    if config.shop and not is_file:
        raise UserError(f"--shop {config.shop}: goes with a .parquet file in --data; give the shop folder itself as --data")
    with locked(config.out):
        trained_run = open_run(
            config.run, data=config.shop if is_file else config.data, flag="--shop" if is_file else "--data", embeddings=config.embeddings
        )
        log = log_of(config.data if is_file else "", trained_run.shop())
        rows = bulk_predict(trained_run, log, config.out, config.part_rows, config.threads)
    print(f"{rows:,} impressions predicted; parts and manifest.json in {config.out}")


if __name__ == "__main__":
    raise SystemExit(main())
