"""Trained weights as a portable file (safetensors), and training that starts from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ctr.inputs.encode import Inputs, is_image_table
from ctr.model.linear import ImagePart
from ctr.training.sharding import TableShard
from features.forms.table import forms_of
from run.checkpoint import write_weights
from run.errors import UserError


def save_weights(path: Path, weights: dict[str, Tensor], inputs: Inputs) -> None:
    """Write weights, the form of their image feature and a hash of the vocabulary that their rows belong to."""
    metadata = {"form": inputs.layout.form, "vocabulary": vocabulary_hash(inputs)}
    write_weights(path, weights, metadata)


_ID_MAP = "image_id."  # how the names of the map from pictures to IDs begin


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A weights file whose tensors and slices are read one by one.

    Raises:
        UserError: the file is missing or is not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the best.safetensors of a CTR run") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not readable as weights ({error}); give the best.safetensors of a CTR run") from None


def check_weights(path: Path) -> None:
    """Refuse a file that training cannot start from, whatever the data.

    Raises:
        UserError: the file is missing, not safetensors, or not from a CTR run.
    """
    with opened(path) as file:
        if "vocabulary" not in (file.metadata() or {}):
            raise UserError(f"{path}: not the weights of a CTR run; give its best.safetensors")


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All weights, and the metadata that `save_weights` stored with them.

    Raises:
        UserError: the file is missing or is not safetensors.
    """
    with opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no mapping)


@torch.no_grad()
def warm_start(model: nn.Module, network: Mapping[str, nn.Parameter], parts: Sequence[TableShard], path: Path, inputs: Inputs) -> None:
    """Start from a trained model: all its weights except those of another form's image feature.

    A new image feature enters with weight 0, so training starts from the trained model's function. A rank reads its own rows of tables.

    Args:
        network: the weights of `model` outside its tables, by name.
        parts: this rank's rows of its tables.

    Raises:
        UserError: the weights are unreadable, or of other data or settings.
    """
    with opened(path) as file:
        there, noted = set(file.keys()), file.metadata() or {}
        if "vocabulary" not in noted:
            raise UserError(f"{path}: not the weights of a CTR run; give its best.safetensors")
        if noted["vocabulary"] != vocabulary_hash(inputs):
            raise UserError(f"{path}: weights of other data or of another min_count; train them on {inputs.shop.folder} first")
        same_form = forms_of(noted.get("form", "")) == forms_of(inputs.layout.form)

        def rows(name: str, shape: Sequence[int], begin: int = 0, end: int | None = None) -> Tensor:
            if name not in there or file.get_slice(name).get_shape() != list(shape):
                what = "the same sizes, adapter, tiers and similarity_place" if of_image(name) else "the same sizes"
                raise UserError(f"{path}: no weights of shape {tuple(shape)} for '{name}'; train both with {what}")
            return file.get_slice(name)[begin:end]

        for name, weight in network.items():
            if not of_image(name) or (same_form and (name in there or not name.startswith(_ID_MAP))):
                weight.copy_(rows(name, weight.shape))
        for part in parts:
            if same_form or not of_image(part.name):
                part.weight.copy_(rows(part.name, part.shape, part.first, part.first + len(part.weight)))
    if not same_form:
        for part in model.modules():
            if isinstance(part, ImagePart):
                nn.init.zeros_(part.weight)


@torch.no_grad()
def begin_ids_from_pictures(image_id: nn.Linear, path: Path, inputs: Inputs) -> None:
    """Set the linear map from pictures to IDs by ridge regression: the trained rows of known items less that of unknown ones.

    Trained weights that hold such a map keep it.

    Args:
        image_id: (D) -> (E).
        path: of trained weights, as `warm_start`'s.
    """
    with opened(path) as file:
        names = list(file.keys())
        if any(name.startswith(_ID_MAP) for name in names):
            return
        table = file.get_tensor(next(name for name in names if name.startswith("tables.") and name.endswith(".item.weight")))
    at = [one.name for one in inputs.items.tables].index("item")
    row = torch.from_numpy(inputs.items.rows[at].astype("int64"))
    known = (row > 0) & torch.from_numpy(inputs.present)
    assert inputs.unit is not None
    weight, bias = ridge(torch.from_numpy(inputs.unit)[known].double(), (table[row[known]] - table[0]).double())
    image_id.weight.copy_(weight)
    image_id.bias.copy_(bias)


def ridge(x_ND: Tensor, y_NE: Tensor) -> tuple[Tensor, Tensor]:
    """(E, D) weights and (E,) bias of a ridge regression, whose strength is the one of nine with the least leave-one-out error.

    With the singular values s of the centred x, the leave-one-out residual of row i is its residual over 1 - h_i, where h_i is the diagonal
    of x (x'x + k)^-1 x' + 1 / N. Zeros where there are fewer than two rows.
    """
    if len(x_ND) < 2:
        return x_ND.new_zeros(y_NE.shape[1], x_ND.shape[1]), x_ND.new_zeros(y_NE.shape[1])
    x_D, y_E = x_ND.mean(0), y_NE.mean(0)
    left_NK, s_K, right_KD = torch.linalg.svd(x_ND - x_D, full_matrices=False)
    on_left_KE, best, weight_ED = left_NK.T @ (y_NE - y_E), float("inf"), x_ND.new_zeros(y_NE.shape[1], x_ND.shape[1])
    for power in range(-4, 5):
        strength = float(s_K.square().mean()) * 10.0**power
        shrunk_K = s_K.square() / (s_K.square() + strength)
        leverage_N = (left_NK.square() * shrunk_K).sum(1) + 1 / len(x_ND)
        residual_NE = (y_NE - y_E - left_NK @ (shrunk_K[:, None] * on_left_KE)) / (1 - leverage_N).clamp(min=1e-9)[:, None]
        if (error := float(residual_NE.square().sum())) < best:
            best, weight_ED = error, ((shrunk_K / s_K.clamp(min=1e-12))[:, None] * on_left_KE).T @ right_KD
    return weight_ED, y_E - weight_ED @ x_D


def vocabulary_hash(inputs: Inputs) -> str:
    """A hash of the assignment of table rows to items, users and words; the image feature is left out."""
    digest = hashlib.sha256()
    items = inputs.items.rows[[not is_image_table(table.name) for table in inputs.items.tables]]
    for rows in (items, inputs.users.rows):
        digest.update(rows.tobytes())
    for texts in (inputs.titles, inputs.queries):
        if texts is not None:
            digest.update(texts.rows.tobytes())
    return digest.hexdigest()[:16]


def of_image(name: str) -> bool:
    """Whether a weight belongs to the image feature: to its tables, or to what reads it.

    >>> of_image("first.image.weight"), of_image("first.base.weight")
    (True, False)
    """
    return any(part == "image" or part.startswith("image_") or is_image_table(part) for part in name.split("."))
