"""Trained weights as a file that travels (safetensors), and going on from them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from ctr.inputs import Inputs
from ctr.linear import ImagePart
from ctr.model import CLUSTER, CtrModel
from run.errors import UserError
from run.folder import write_atomic


def save_weights(path: Path, weights: dict[str, Tensor], inputs: Inputs) -> None:
    """Write weights, the form of their image feature and a hash of the vocabulary that their rows belong to."""
    from safetensors.torch import save

    metadata = {"form": inputs.layout.form, "vocabulary": vocabulary_hash(inputs)}
    write_atomic(path, save({name: tensor.contiguous() for name, tensor in weights.items()}, metadata=metadata))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights, and what `save_weights` noted of them.

    Raises:
        UserError: the file is missing or is not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not readable as weights ({error}); give the best.safetensors of a CTR run") from None


@torch.no_grad()
def warm_start(model: CtrModel, path: Path, inputs: Inputs) -> None:
    """Go on from a trained model: all its weights but those of another form's image feature.

    A new image feature enters with weight 0, so that the start is the trained model itself.

    Raises:
        UserError: unreadable weights, or of other data or settings.
    """
    weights, noted = read_weights(path)
    if noted.get("vocabulary") != vocabulary_hash(inputs):
        raise UserError(f"{path}: weights of other data or of another min_count; train them on {inputs.shop.folder} first")
    same_form = noted.get("form") == inputs.layout.form
    for name, parameter in model.named_parameters():
        if _of_image(name) and not same_form:
            continue
        if name not in weights or weights[name].shape != parameter.shape:
            raise UserError(f"{path}: no weights of shape {tuple(parameter.shape)} for '{name}'; train both with the same sizes")
        parameter.copy_(weights[name])
    if not same_form:
        for part in model.modules():
            if isinstance(part, ImagePart):
                nn.init.zeros_(part.weight)


def vocabulary_hash(inputs: Inputs) -> str:
    """A hash of which table row every item, user and word has; the image feature is left out."""
    digest = hashlib.sha256()
    items = inputs.items.rows[[table.name != CLUSTER for table in inputs.items.tables]]
    for rows in (items, inputs.users.rows):
        digest.update(rows.tobytes())
    for texts in (inputs.titles, inputs.queries):
        if texts is not None:
            digest.update(texts.rows.tobytes())
    return digest.hexdigest()[:16]


def _of_image(name: str) -> bool:
    return any(part in ("image", CLUSTER) for part in name.split("."))
