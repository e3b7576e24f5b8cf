"""A trained CTR model as one folder, which is all that scoring needs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from ctr.inputs.encode import EncodedColumns
from ctr.inputs.rules import Vocabularies
from ctr.inputs.vocabulary import Ragged, Vocabulary
from ctr.inputs.vocabulary_files import FOLDER
from ctr.serving.lookup import save_array, write_lookup
from ctr.serving.serving_model import ServingModel, exported
from ctr.serving.snapshot import write_snapshot
from ctr.serving.trained_run import TrainedRun, encoder_of
from data.log.columns import is_text
from data.log.shop_folder import Shop
from features.picture_encoder import write_encoder
from run.errors import UserError
from run.files import naming, read_json, replacing, replacing_folder, write_json
from run.folder import commit, file_hash

EXPORT_VERSION = 4  # of the format; another is refused
_MODEL = "model.pt2"
_PARTS = (_MODEL, FOLDER, "lookup", "log", "items", "users", "encoder")


def export(trained_run: TrainedRun, out: Path, *, encoder_run: Path | None = None, as_of: int | None = None) -> dict[str, Any]:
    """Write the export folder; returns the content of its meta.json.

    Everything is written next to an existing export and replaces it once complete; meta.json comes last.

    Args:
        encoder_run: the run folder of the encoder; None: the folder around the embeddings.
        as_of: Unix s at which the log's counts are taken; None: after its last impression.

    Raises:
        UserError: `out` holds something else, or the requested encoder is not there.
        OSError: a file cannot be written; an existing export stays.
    """
    if any((out / name).exists() for name in ("checkpoints", "config.toml", "result.json", "items.parquet")):
        raise UserError(f"{out}: a run or a shop folder; give another --out")
    encoder = None if trained_run.embeddings is None else encoder_of(trained_run.embeddings, encoder_run)
    fresh = out / ".new"
    with replacing_folder(fresh) as folder:
        meta = _write_parts(trained_run, folder, as_of)
        if encoder is not None:
            write_encoder(folder / "encoder", *encoder)
    meta["encoder"] = encoder is not None
    (out / "meta.json").unlink(missing_ok=True)  # without it, this is not an export
    for part in _PARTS:
        old = out / part
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
        if (fresh / part).exists():
            os.rename(fresh / part, old)
    fresh.rmdir()
    write_json(out / "meta.json", meta)
    return meta


def refresh_log(trained_run: TrainedRun, out: Path, *, as_of: int | None = None) -> int:
    """Count the log again for an existing export of the same run and catalogue; returns the Unix s at which it was counted.

    Raises:
        UserError: `out` holds no export of this run, or its items or users are others.
    """
    meta = read_json(out / "meta.json") if (out / "meta.json").is_file() else {}
    shop = trained_run.shop()
    wanted = {"items": len(shop.items), "users": len(shop.users), "version": EXPORT_VERSION}
    if any(meta.get(name) != value for name, value in wanted.items()) or not _same_rules(trained_run.folder, meta):
        raise UserError(f"{out}: not an export of {trained_run.folder} with these items and users; export all of it, without --log-only")
    moment = _moment(shop, trained_run.spec.config.lag, as_of)
    columns = list(trained_run.spec.vocabularies.item.categorical)
    with replacing_folder(out / "log") as folder:
        write_snapshot(folder, trained_run.catalogue(shop), shop.items, columns, moment)
    write_json(out / "meta.json", meta | {"as_of": moment})
    return moment


def _same_rules(run: Path, meta: dict[str, Any]) -> bool:
    name = f"{FOLDER}/vocabulary.json"
    return meta["files"].get(name) == file_hash(run / name)


def _moment(shop: Shop, lag: int, as_of: int | None) -> int:
    """Unix s at which a log is counted: just after its last impression unless another time is given."""
    return int(shop.time.max()) + 1 + lag if as_of is None else as_of


def _write_parts(trained_run: TrainedRun, folder: Path, as_of: int | None) -> dict[str, Any]:
    """Write the model, its rules and the known items and users; returns the entries of meta.json about them."""
    spec, shop = trained_run.spec, trained_run.shop()
    catalogue = trained_run.catalogue(shop)
    pictures = {"vectors": catalogue.vectors, "unit": catalogue.unit}
    sizes = {name: 0 if array is None else array.shape[1] for name, array in pictures.items()}
    program = exported(ServingModel(spec.layout, spec.config, trained_run.weights), **sizes)
    with naming(folder / _MODEL):
        torch.export.save(program, folder / _MODEL)
    for file in (trained_run.folder / FOLDER).iterdir():
        with replacing(folder / FOLDER / file.name) as temporary:
            shutil.copyfile(file, temporary)
    _write_lookups(folder / "lookup", spec.vocabularies)
    item_id, user_id = shop.items["item_id"], shop.users["user_id"]
    _write_rows(folder / "items", item_id, catalogue.items, catalogue.titles, present=catalogue.present, **pictures)
    _write_rows(folder / "users", user_id, catalogue.users)
    moment = _moment(shop, spec.config.lag, as_of)
    write_snapshot(folder / "log", catalogue, shop.items, list(spec.vocabularies.item.categorical), moment)
    return {
        "version": EXPORT_VERSION, "as_of": moment, "form": spec.layout.form, "sizes": sizes, "items": len(item_id), "users": len(user_id),
        "text_ids": {"item": is_text(item_id.dtype), "user": is_text(user_id.dtype)},
        "files": {name: file_hash(folder / name) for name in (_MODEL, f"{FOLDER}/vocabulary.json")},
        "versions": {"torch": torch.__version__}, "commit": commit(),
    }  # fmt: skip


def _write_lookups(folder: Path, vocabularies: Vocabularies) -> None:
    """The vocabularies as lookups from a value to its row; their names are those of the vocabulary's files."""
    for kind in ("item", "user", "context"):
        rules = getattr(vocabularies, kind)
        if isinstance(rules.ids, Vocabulary):
            write_lookup(folder / f"{kind}-ids", rules.ids.values, first=1)
        for place, values in enumerate(rules.categorical.values()):
            write_lookup(folder / f"{kind}-{place}", values.values, first=1)
    if vocabularies.words is not None:
        write_lookup(folder / "words", vocabularies.words.values, first=1)


def _write_rows(folder: Path, ids: pl.Series, columns: EncodedColumns, texts: Ragged | None = None, **more: np.ndarray | None) -> None:
    """Known items or users as .npy arrays: row by row, so that each is in one place on disk."""
    write_lookup(folder / "ids", ids, first=0)
    arrays = {"rows": np.ascontiguousarray(columns.rows.T), "numeric": columns.numeric, **more}
    if texts is not None:
        arrays |= {"words": texts.rows, "start": texts.start}
    for name, array in arrays.items():
        if array is not None:
            save_array(folder / f"{name}.npy", array)
