"""Export a CTR model to serve: python -m ctr.export --run RUN --out DIR. Score with python -m ctr.score, or with your own server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from run.config import parse
from run.errors import UserError, entry

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from ctr.inputs.encode import EncodedColumns
    from ctr.inputs.vocabulary import Ragged
    from ctr.serving.trained_run import TrainedRun

ABOUT = """Write all that scoring needs into one folder:
  model.pt2     the model as a program of torch.export; it runs without this toolkit
  vocabulary/   which values have rows, how numbers are standardised, how an embedding becomes the image feature
  lookup/       the same values as sorted hashes, mapped from the disk
  items/ users/ the known ones as arrays, mapped from the disk
  encoder/      weights that embed new pictures (an encoder trained here, where it is found)
  meta.json     form, sizes, versions and hashes, written last"""
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of an export."""

    run: Path = Path("runs/ctr")  # run folder of ctr.train
    out: Path = Path("runs/export")  # folder to write
    data: str = ""  # shop folder whose items and users are exported; empty: the run's own
    embeddings: Path | None = None  # embeddings folder of those items; None: the run's own
    encoder_run: Path | None = None  # run folder of the encoder (pretrain.train); None: the folder around the embeddings


@entry
def main(argv: list[str] | None = None) -> None:
    """Parse flags and export."""
    config = parse(ExportConfig, argv, prog="python -m ctr.export", description=ABOUT)
    from ctr.serving.trained_run import open_run
    from run.folder import locked

    with locked(config.out):
        found = open_run(config.run, data=config.data, embeddings=config.embeddings)
        meta = export(found, config.out, encoder_run=config.encoder_run)
    pictures = "new pictures are embedded" if meta["encoder"] else "there is no encoder: new pictures count as none"
    print(f"{meta['form']}: {meta['items']:,} items, {meta['users']:,} users, {pictures}; exported to {config.out}")


def export(found: TrainedRun, out: Path, *, encoder_run: Path | None = None) -> dict[str, Any]:
    """Write the export folder; what its meta.json holds.

    Raises:
        UserError: `out` holds something else, or an encoder that was asked for is not there.
    """
    import shutil

    import torch

    from ctr.inputs.vocabulary_files import FOLDER
    from ctr.serving.serving_model import ServingModel, exported
    from ctr.serving.trained_run import encoder_of
    from data.log.columns import is_text
    from features.picture_encoder import write_encoder
    from run.files import write_json
    from run.folder import commit, file_hash

    if any((out / name).exists() for name in ("checkpoints", "config.toml", "result.json", "items.parquet")):
        raise UserError(f"{out}: is a run or a shop folder; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / "meta.json").unlink(missing_ok=True)  # until it is there again, this is no export
    for part in ("items", "users", "lookup", "encoder", FOLDER):
        shutil.rmtree(out / part, ignore_errors=True)
    known, shop = found.known, found.shop()
    catalogue = found.catalogue(shop)
    dim = 0 if catalogue.vectors is None else catalogue.vectors.shape[1]
    program = exported(ServingModel(known.layout, known.config, found.weights), dim)
    torch.export.save(program, out / "model.pt2")
    shutil.copytree(found.folder / FOLDER, out / FOLDER)
    _write_lookups(out / "lookup", known.vocabularies)
    _write_rows(
        out / "items", shop.items["item_id"], catalogue.items, catalogue.titles, vectors=catalogue.vectors, present=catalogue.present
    )
    _write_rows(out / "users", shop.users["user_id"], catalogue.users)
    encoder = None if found.embeddings is None else encoder_of(found.embeddings, encoder_run)
    if encoder is not None:
        write_encoder(out / "encoder", *encoder)
    meta = {
        "version": VERSION, "form": known.layout.form, "dim": dim, "encoder": encoder is not None, "items": len(shop.items),
        "users": len(shop.users), "text_ids": {"item": is_text(shop.items["item_id"].dtype), "user": is_text(shop.users["user_id"].dtype)},
        "files": {name: file_hash(out / name) for name in ("model.pt2", f"{FOLDER}/vocabulary.json")},
        "versions": {"torch": torch.__version__}, "commit": commit(),
    }  # fmt: skip
    write_json(out / "meta.json", meta)
    return meta


def _write_lookups(folder: Path, vocabularies: Any) -> None:
    """The vocabularies as lookups from a value to its row; their names are those of the vocabulary's files."""
    from ctr.inputs.vocabulary import Vocabulary
    from ctr.serving.lookup import write_lookup

    for kind in ("item", "user", "context"):
        rules = getattr(vocabularies, kind)
        if isinstance(rules.ids, Vocabulary):
            write_lookup(folder / f"{kind}-ids", rules.ids.values, first=1)
        for place, values in enumerate(rules.categorical.values()):
            write_lookup(folder / f"{kind}-{place}", values.values, first=1)
    if vocabularies.words is not None:
        write_lookup(folder / "words", vocabularies.words.values, first=1)


def _write_rows(folder: Path, ids: pl.Series, columns: EncodedColumns, texts: Ragged | None = None, **more: np.ndarray | None) -> None:
    """Known items or users as .npy arrays: one row after another, so that one of them is one place on the disk."""
    import numpy as np

    from ctr.serving.lookup import write_lookup

    write_lookup(folder / "ids", ids, first=0)
    arrays = {"rows": np.ascontiguousarray(columns.rows.T), "numeric": columns.numeric, **more}
    if texts is not None:
        arrays |= {"words": texts.rows, "start": texts.start}
    for name, array in arrays.items():
        if array is not None:
            np.save(folder / f"{name}.npy", array)


if __name__ == "__main__":
    raise SystemExit(main())
