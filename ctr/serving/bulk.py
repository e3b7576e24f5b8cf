"""Click probabilities of a log, part by part: a killed call resumes with the next part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from lightning_fabric import Fabric

from ctr.inputs.encode import EncodedCatalogue, encode_columns, encode_log
from ctr.inputs.impression_parts import ONLY_SPLIT, ImpressionPart, Log, cuts, read_part
from ctr.model.ctr_model import CtrModel
from ctr.serving.trained_run import TrainedRun
from ctr.training.predict import predict
from run.devices import set_up
from run.errors import UserError, one_process
from run.files import read_json, write_json, write_with
from run.folder import file_hash
from run.progress import Progress


def bulk_predict(trained_run: TrainedRun, log: Log, out: Path, part_rows: int, threads: int = 0) -> int:
    """Write the parts that are not there yet; returns the number of impressions.

    Raises:
        UserError: `out` holds the parts of another call, or the log does not fit the model.
    """
    one_process("ctr.bulk_predict")
    parts = cuts(log, part_rows)
    manifest = _manifest(trained_run, log, part_rows, parts)
    _refuse_another_call(out, manifest)
    write_json(out / "manifest.json", manifest | {"finished": False})
    fabric = set_up(threads, trained_run.spec.config.precision)
    catalogue = trained_run.catalogue(log.shop)
    names = [out / f"part-{number:05d}.parquet" for number in range(len(parts))]
    done = sum(part.rows for part, name in zip(parts, names, strict=True) if name.exists())
    model = None
    with Progress("predicting", total=manifest["rows"], unit="impressions", start=done) as bar:
        for part, name in zip(parts, names, strict=True):
            if name.exists():
                continue
            if model is None:
                model = fabric.to_device(_model(trained_run))
            row, score = _predicted(trained_run, log, part, catalogue, model, fabric)
            write_with(name, pl.DataFrame({"row": row, "score": score}).write_parquet)
            bar.advance(part.rows)
    write_json(out / "manifest.json", manifest | {"finished": True})
    return manifest["rows"]


def _manifest(trained_run: TrainedRun, log: Log, part_rows: int, parts: list[ImpressionPart]) -> dict[str, Any]:
    """What is predicted, and with which model."""
    folder, embeddings = trained_run.folder, trained_run.embeddings
    return {
        "weights": file_hash(folder / "best.safetensors"), "vocabulary": file_hash(folder / "vocabulary/vocabulary.json"),
        "embeddings": None if embeddings is None else file_hash(embeddings / "vectors.npy"), "log": log.fingerprint,
        "part_rows": part_rows, "parts": len(parts), "rows": int(sum(part.rows for part in parts)),
    }  # fmt: skip


def _refuse_another_call(out: Path, manifest: dict[str, Any]) -> None:
    if (out / "manifest.json").exists():
        begun = read_json(out / "manifest.json")
        other = [name for name, value in manifest.items() if begun.get(name) != value]
        if other:
            raise UserError(f"{out}: holds predictions of another call ({', '.join(other)} differ); delete it or give another --out")
    elif any(out.glob("part-*.parquet")):
        raise UserError(f"{out}: holds part files without a manifest.json; give another --out")


def _model(trained_run: TrainedRun) -> CtrModel:
    model = CtrModel(trained_run.spec.layout, trained_run.spec.config)
    try:
        model.load_state_dict(trained_run.weights)
    except RuntimeError as error:
        path, reason = trained_run.folder / "best.safetensors", str(error).splitlines()[-1].strip()
        raise UserError(f"{path}: weights of another model ({reason})") from None
    return model


def _predicted(
    trained_run: TrainedRun, log: Log, part: ImpressionPart, catalogue: EncodedCatalogue, model: CtrModel, fabric: Fabric
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the log (n,) int64, ascending, and probabilities (n,) float64 of one part."""
    config, vocabularies = trained_run.spec.config, trained_run.spec.vocabularies
    shop, rows, users, user_of_session = read_part(log, part)
    inputs = encode_log(shop, catalogue, config, vocabularies, file=log.path.name)
    # histories belong to users by their number in the shop; from here on, user numbers are those of the part
    inputs = replace(inputs, users=encode_columns(vocabularies.user, users, config))
    inputs = replace(inputs, shop=replace(shop, session_user=user_of_session))
    predictions = predict(model, inputs, ONLY_SPLIT, fabric, config)
    return rows[predictions.row], predictions.score
