"""Click probabilities of a day's impressions: python -m ctr.bulk_predict --run RUN --data DIR_OR_PARQUET --out DIR.

Part after part is predicted and written; a killed call goes on with the next part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from run.config import parse, positive
from run.errors import UserError, entry

if TYPE_CHECKING:
    from ctr.inputs.impression_parts import Log
    from ctr.model.ctr_model import CtrModel
    from ctr.serving.trained_run import TrainedRun

ABOUT = """Predict all impressions of a shop folder, or of a parquet file of sessions, of any time, of the shop that the run was trained on.
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
    out: Path = Path("runs/bulk")  # folder of the parts; the same command goes on where a killed one was
    embeddings: Path | None = None  # embeddings folder of the shop's items; None: the run's own
    shop: str = ""  # shop folder whose items, users and events a parquet file belongs to; empty: the run's own
    part_rows: int = 1_000_000  # impressions in a part, about: sessions are not cut, and memory is bounded by a part
    threads: int = 0  # CPU threads; 0: torch's choice. Scores are the same bits for the same number

    def __post_init__(self):
        positive("part_rows", self.part_rows)


@entry
def main(argv: list[str] | None = None) -> None:
    """Parse flags and predict what is not there yet."""
    config = parse(BulkConfig, argv, prog="python -m ctr.bulk_predict", description=ABOUT)
    from ctr.inputs.impression_parts import log_of
    from ctr.serving.trained_run import open_run
    from run.folder import locked

    is_file = config.data.endswith(".parquet")
    if not is_file and Path(config.data).is_file():
        raise UserError(f"--data {config.data}: is a file that is not .parquet; give a shop folder or a .parquet file")
    with locked(config.out):
        found = open_run(config.run, data=config.shop if is_file else config.data, embeddings=config.embeddings)
        rows = bulk_predict(found, log_of(config.data if is_file else "", found.shop()), config.out, config.part_rows, config.threads)
    print(f"{rows:,} impressions predicted; parts and manifest.json in {config.out}")


def bulk_predict(found: TrainedRun, log: Log, out: Path, part_rows: int, threads: int = 0) -> int:
    """Write the parts that are not there yet; the number of impressions.

    Raises:
        UserError: `out` holds the parts of another call, or the log does not fit the model.
    """
    import io

    import polars as pl

    from ctr.inputs.impression_parts import cuts
    from run.devices import set_up
    from run.errors import one_process
    from run.files import read_json, write_atomic, write_json
    from run.folder import file_hash
    from run.progress import Progress

    one_process("ctr.bulk_predict")
    parts = cuts(log, part_rows)
    manifest: dict[str, Any] = {
        "weights": file_hash(found.folder / "best.safetensors"), "vocabulary": file_hash(found.folder / "vocabulary/vocabulary.json"),
        "embeddings": None if found.embeddings is None else str(found.embeddings.resolve()), "log": log.fingerprint, "part_rows": part_rows,
        "parts": len(parts), "rows": int(sum(part.rows for part in parts)),
    }  # fmt: skip
    if (out / "manifest.json").exists():
        begun = read_json(out / "manifest.json")
        other = [name for name, value in manifest.items() if begun.get(name) != value]
        if other:
            raise UserError(f"{out}: holds predictions of another call ({', '.join(other)} differ); delete it or give another --out")
    elif any(out.glob("part-*.parquet")):
        raise UserError(f"{out}: holds part files without a manifest.json; give another --out")
    write_json(out / "manifest.json", manifest | {"finished": False})
    fabric = set_up(threads, found.known.config.precision)
    catalogue = found.catalogue(log.shop)
    names = [out / f"part-{number:05d}.parquet" for number in range(len(parts))]
    done = sum(part.rows for part, name in zip(parts, names, strict=True) if name.exists())
    model = None
    with Progress("predicting", total=manifest["rows"], unit="impressions", start=done) as bar:
        for part, name in zip(parts, names, strict=True):
            if name.exists():
                continue
            if model is None:
                model = fabric.to_device(_model(found))
            content = io.BytesIO()
            row, score = _predicted(found, log, part, catalogue, model, fabric)
            pl.DataFrame({"row": row, "score": score}).write_parquet(content)
            write_atomic(name, content.getvalue())
            bar.advance(part.rows)
    write_json(out / "manifest.json", manifest | {"finished": True})
    return manifest["rows"]


def _model(found: TrainedRun) -> CtrModel:
    from ctr.model.ctr_model import CtrModel

    model = CtrModel(found.known.layout, found.known.config)
    try:
        model.load_state_dict(found.weights)
    except RuntimeError as error:
        raise UserError(f"{found.folder / 'best.safetensors'}: weights of another model ({str(error).splitlines()[-1].strip()})") from None
    return model


def _predicted(found: TrainedRun, log: Log, part: Any, catalogue: Any, model: Any, fabric: Any) -> tuple[Any, Any]:
    """Rows of the log (n,) int64, ascending, and probabilities (n,) float64 of one part."""
    from dataclasses import replace

    from ctr.inputs.encode import encode_columns, encode_log
    from ctr.inputs.impression_parts import ONLY_SPLIT, read_part
    from ctr.training.predict import predict

    known = found.known
    shop, rows, users, user_of_session = read_part(log, part)
    inputs = encode_log(shop, catalogue, known.config, known.vocabularies, file=log.path.name)
    # histories belong to users by their number in the shop; from here on users are those of the part
    inputs = replace(inputs, users=encode_columns(known.vocabularies.user, users, known.config))
    inputs = replace(inputs, shop=replace(shop, session_user=user_of_session))
    scores = predict(model, inputs, ONLY_SPLIT, fabric, known.config)
    return rows[scores.row], scores.score


if __name__ == "__main__":
    raise SystemExit(main())
