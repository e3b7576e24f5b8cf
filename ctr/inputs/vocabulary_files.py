"""What a run leaves for applying its model to other data: vocabularies, layout, settings, the image feature's constants.

`vocabulary/` holds one parquet file per vocabulary (column `value`, in the order of its rows), `image.npz`, and `vocabulary.json`, written
last, which names the others with a hash of each. Nothing in it is pickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ctr.config import CtrConfig
from ctr.inputs.encode import ImageLayout, Inputs, Layout
from ctr.inputs.rules import Rules, Table, Vocabularies
from ctr.inputs.vocabulary import Hashed, Scale, Vocabulary
from features.forms.table import forms_of
from features.image_feature import ImageRule, digest
from run.config import as_dict, with_settings
from run.errors import UserError
from run.files import read_json, write_atomic, write_json
from run.folder import sha256

VERSION = 5
FOLDER = "vocabulary"
_LIST = "vocabulary.json"
_COMMON = "common part"  # in image.npz; the other names are FORM.NAME, NAME the form's own, both identifiers


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What a trained model knows, except its weights."""

    vocabularies: Vocabularies
    layout: Layout
    config: CtrConfig
    rule: ImageRule | None  # None: no image feature, or one made without a rule
    feature: str  # a hash of the image feature of the items it was trained on


def write_model_spec(folder: Path, inputs: Inputs, config: CtrConfig) -> None:
    """Write `folder/vocabulary/`."""
    folder = folder / FOLDER
    hashes: dict[str, str] = {}

    def store(name: str, content: bytes) -> str:
        write_atomic(folder / name, content)
        hashes[name] = hashlib.sha256(content).hexdigest()
        return name

    def values(name: str, vocabulary: Vocabulary) -> str:
        table = io.BytesIO()
        pl.DataFrame({"value": vocabulary.values}).write_parquet(table)
        return store(f"{name}.parquet", table.getvalue())

    def ids(name: str, known: Vocabulary | Hashed | None) -> Any:
        return dataclasses.asdict(known) if isinstance(known, Hashed) else known and values(name, known)

    def rules(of: Rules) -> dict[str, Any]:
        columns = [[name, values(f"{of.kind}-{place}", known)] for place, (name, known) in enumerate(of.categorical.items())]
        numeric = [dataclasses.asdict(scale) for scale in of.numeric]
        return {"ids": ids(f"{of.kind}-ids", of.ids), "categorical": columns, "numeric": numeric}

    known = inputs.vocabularies
    content: dict[str, Any] = {name: rules(getattr(known, name)) for name in ("item", "user", "context")}
    content["words"] = None if known.words is None else values("words", known.words)
    content |= {
        "log_numbers": [dataclasses.asdict(scale) for scale in known.log_numbers],
        "since": known.since,
        "sampled": known.sampled,
        "own_score": known.own_score,
        "own_line": known.own_line,
    }
    content |= {"titles": known.titles, "queries": known.queries, "layout": dataclasses.asdict(inputs.layout), "image": None}
    if (rule := inputs.feature.rule) is not None:
        arrays: dict[str, Any] = {_COMMON: rule.common}
        arrays |= {f"{form}.{name}": array for form, constants in rule.constants.items() for name, array in constants.items()}
        stored = io.BytesIO()
        np.savez(stored, **arrays)
        content["image"] = {"form": rule.form, "file": store("image.npz", stored.getvalue())}
    content |= {"config": as_dict(config), "feature": digest(inputs.feature), "version": VERSION, "files": hashes}
    write_json(folder / _LIST, content)


def read_model_spec(folder: Path, *, values: bool = True) -> ModelSpec:
    """Read `folder/vocabulary/`.

    Args:
        values: read the vocabularies' values and check them; if false, they are empty, and only their types are known.

    Raises:
        UserError: it is missing or of another version, or a file has changed since it was written.
    """
    folder = folder / FOLDER
    if not (folder / _LIST).is_file():
        raise UserError(f"{folder / _LIST}: no such file; give the run folder of a CTR model (of ctr.train, trained to its end)")
    content = read_json(folder / _LIST)
    if content.get("version") != VERSION:
        raise UserError(f"{folder / _LIST}: version {content.get('version')}, but {VERSION} is read here; train the model again")
    for name, wanted in content["files"].items():
        path = folder / name
        if not values and path.suffix == ".parquet":
            continue
        if not path.is_file() or sha256(path) != wanted:
            raise UserError(f"{path}: missing, or not the file that the training wrote; copy the run folder again, or train again")

    def read(name: str) -> Vocabulary:
        return Vocabulary(values=pl.read_parquet(folder / name, glob=False, n_rows=None if values else 0)["value"])

    def rules(kind: str) -> Rules:
        part = content[kind]
        ids = Hashed(**part["ids"]) if isinstance(part["ids"], dict) else part["ids"] and read(part["ids"])
        categorical = {name: read(file) for name, file in part["categorical"]}
        return Rules(kind=kind, ids=ids, categorical=categorical, numeric=tuple(Scale(**scale) for scale in part["numeric"]))

    rule = None
    if content["image"] is not None:
        with np.load(folder / content["image"]["file"], allow_pickle=False) as stored:
            constants: dict[str, dict[str, np.ndarray]] = {form: {} for form in forms_of(content["image"]["form"])}
            for form, _, name in (full.partition(".") for full in stored.files if full != _COMMON):
                constants[form][name] = stored[f"{form}.{name}"]
            rule = ImageRule(form=content["image"]["form"], common=stored[_COMMON], constants=constants)
    layout = content["layout"]
    for part in ("item", "user", "context"):
        layout[part] = tuple(Table(**table) for table in layout[part])
    layout["images"] = tuple(_image_layout(**image) for image in layout["images"])
    layout["own_line"] = tuple(layout["own_line"])
    layout["distances"] = tuple(tuple(place) for place in layout["distances"])
    settings = {name: value for name, value in content["config"].items() if value is not None}
    return ModelSpec(
        vocabularies=Vocabularies(
            item=rules("item"), user=rules("user"), context=rules("context"),
            words=None if content["words"] is None else read(content["words"]), titles=content["titles"], queries=content["queries"],
            log_numbers=tuple(Scale(**scale) for scale in content["log_numbers"]), since=content["since"], sampled=content["sampled"],
            own_score=content["own_score"], own_line=tuple(content["own_line"]),
        ),
        layout=Layout(**layout),
        config=with_settings(CtrConfig(), settings, source=str(folder / _LIST)),
        rule=rule,
        feature=content["feature"],
    )  # fmt: skip


def _image_layout(*, tables: list[str], constants: dict[str, list[float]], **others: Any) -> ImageLayout:
    """As `asdict` and JSON leave it, with lists in place of tuples."""
    return ImageLayout(tables=tuple(tables), constants={name: tuple(values) for name, values in constants.items()}, **others)
