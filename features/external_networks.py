"""Networks of other libraries, frozen, each with its library's own preprocessing: pictures -> embeddings."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from data.log.shop_folder import Shop
from data.pictures.files import PictureError, fix_for, read_picture
from features.encoder_names import DOWNLOAD, RANDOM, External
from pretrain.backbones.timm_body import timm_network
from pretrain.backbones.torchvision_body import last_linear, load_state
from pretrain.backbones.weights import download, read_state
from run.errors import DataError, UserError
from run.files import write_with
from run.progress import Progress
from run.randomness import integer_seed

_PART = 128  # pictures per partial file: lost at most by a kill, per worker
_BATCH = 32  # pictures encoded at once


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A network in evaluation, and how its library prepares a picture."""

    net: nn.Module
    encode: Callable[[Tensor], Any]  # (P, 3, H, W) -> (P, D)
    prepare: Callable[[Image.Image], Tensor]  # resize, crop and normalise as the library does: -> (3, H, W)


def embed_pictures(encoder: External, shop: Shop, *, parts: Path, workers: int, max_bad_images: float) -> np.ndarray:
    """(N, D) float32 embeddings of every item's picture, not normalised; zero rows where it is missing or unreadable.

    Each worker decodes and encodes its own batches on one thread, so numbers do not depend on their count.

    Args:
        parts: a folder for partial results, from which a killed call resumes; the caller removes it.
        workers: threads; 0: one per CPU core.
        max_bad_images: the largest share of unreadable pictures among items that name one.

    Raises:
        UserError: the weights cannot be obtained, or an embedding is not a row of finite numbers.
        DataError: too many pictures are unreadable.
    """
    from run.devices import set_up

    device = set_up(threads=1).device
    frozen = load(encoder, device)
    images: list[str | None] = shop.items["image"].to_list() if "image" in shop.items.columns else [None] * len(shop.items)
    named = np.array([row for row, image in enumerate(images) if image is not None], dtype=np.int64)
    pieces = [named[start : start + _PART] for start in range(0, len(named), _PART)]
    if not pieces:
        raise DataError("items.parquet", column="image", fix=f"names no picture that {encoder.name} could embed")

    def embed(number: int) -> np.ndarray:
        path = parts / f"{number:06d}.npy"
        if path.exists():
            return np.load(path, allow_pickle=False)
        found = encode_files(frozen, encoder.name, shop.folder, [str(images[row]) for row in pieces[number]], device)
        write_with(path, lambda file: np.save(file, found))
        return found

    rows = []
    pool = ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)))
    try:
        with Progress(f"embedding {encoder.name}", total=len(named), unit="pictures") as bar:
            for found in pool.map(embed, range(len(pieces))):
                rows.append(found)
                bar.advance(len(found))
    finally:
        pool.shutdown(cancel_futures=True)
    dim = max(found.shape[1] for found in rows)  # a part without any readable picture has 0 columns
    vectors = np.zeros((len(images), dim), dtype=np.float32)
    for piece, found in zip(pieces, rows, strict=True):
        vectors[piece] = found if found.shape[1] else 0.0
    _refuse_too_many(shop, images, named[~vectors[named].any(1)], len(named), max_bad_images)
    return vectors


def encode_files(frozen: Frozen, name: str, folder: Path, images: list[str], device: torch.device) -> np.ndarray:
    """(P, D) float32 embeddings of picture files; zero rows where one is unreadable, D = 0 where all are.

    Raises:
        UserError: the network returns anything but one row of finite numbers per picture.
    """
    prepared: dict[int, Tensor] = {}
    for place, image in enumerate(images):
        try:
            prepared[place] = frozen.prepare(Image.fromarray(read_picture(folder, image)))
        except PictureError:
            continue
    places = list(prepared)
    out: list[np.ndarray] = []
    with torch.inference_mode():
        for start in range(0, len(places), _BATCH):
            batch = torch.stack([prepared[place] for place in places[start : start + _BATCH]]).to(device)
            found = frozen.encode(batch)
            if not isinstance(found, Tensor) or found.ndim != 2:
                shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise UserError(f"{name}: gives {shape} for {len(batch)} pictures, not one row each; choose a model with pooled features")
            out.append(found.float().cpu().numpy())
    if not out:
        return np.zeros((len(images), 0), dtype=np.float32)
    known = np.concatenate(out)
    bad = np.flatnonzero(~np.isfinite(known).all(1))
    if len(bad):
        raise UserError(f"{name}: its embedding of images/{images[places[bad[0]]]} is not finite; these weights do not fit this network")
    rows = np.zeros((len(images), known.shape[1]), dtype=np.float32)
    rows[places] = known
    return rows


def load(encoder: External, device: torch.device | str = "cpu") -> Frozen:
    """The encoder's network with its weights, in evaluation.

    Raises:
        UserError: the weights cannot be downloaded or do not fit.
    """
    make = {"timm": _timm, "open_clip": _open_clip, "torchvision": _torchvision}[encoder.library]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(0, "foreign", encoder.model))  # the same "@random" for every seed of a comparison
        frozen = make(encoder)
    frozen.net.to(device).eval().requires_grad_(False)
    return frozen


def _timm(encoder: External) -> Frozen:
    import timm.data

    state = None if encoder.file is None else read_state(encoder.file)
    net = _load_or_explain(encoder, lambda: timm_network(encoder.model, pretrained=encoder.weights == DOWNLOAD, state=state))
    prepare: Any = timm.data.create_transform(**timm.data.resolve_model_data_config(net), is_training=False)
    return Frozen(net=net, encode=net, prepare=prepare)


def _open_clip(encoder: External) -> Frozen:
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    chosen = open_clip.get_pretrained_cfg(encoder.model, encoder.tag) if encoder.tag else {}
    words: dict[str, Any] = {"pretrained": encoder.tag} if encoder.weights == DOWNLOAD else {"force_preprocess_cfg": chosen}
    words["force_quick_gelu"] = bool(chosen.get("quick_gelu"))  # OpenAI's weights were trained with it, whatever the model's name

    def make() -> nn.Module:
        with _quiet():
            net = open_clip.create_model(encoder.model, pretrained_text=False, **words)
        if encoder.file is not None:
            read_state(encoder.file)  # refuses unsafe files, with our own messages
            full: Any = net
            open_clip.load_checkpoint(full, str(encoder.file), weights_only=True)
        return net

    net: Any = _load_or_explain(encoder, make)
    prepare: Any = image_transform_v2(PreprocessCfg(**net.visual.preprocess_cfg), is_train=False)
    return Frozen(net=net, encode=net.encode_image, prepare=prepare)


def _torchvision(encoder: External) -> Frozen:
    from torchvision import models

    table: Any = models.get_model_weights(encoder.model)
    entry = table.DEFAULT
    net = models.get_model(encoder.model, weights=None)
    if encoder.weights == DOWNLOAD:
        load_state(net, download(entry, encoder.model, fix=f"{encoder.model}@FILE"), name=encoder.model, source="ImageNet weights")
    elif encoder.file is not None:
        load_state(net, read_state(encoder.file), name=encoder.model, source=encoder.weights)
    net.set_submodule(last_linear(net)[0], nn.Identity())  # the embedding is the classifier's input
    return Frozen(net=net, encode=net, prepare=entry.transforms())


@contextmanager
def _quiet() -> Iterator[None]:
    """Log errors only: open_clip warns about random weights even if a file's are about to be loaded."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _load_or_explain(encoder: External, make: Callable[[], nn.Module]) -> nn.Module:
    """The result of `make`; a library's many kinds of errors become one line with the fix.

    Raises:
        UserError: the weights cannot be obtained or do not fit.
    """
    try:
        return make()
    except UserError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "")[:200]
        if encoder.file is not None:
            raise UserError(f"{encoder.weights}: not weights of {encoder.library}'s {encoder.model} ({reason})") from None
        if encoder.weights == RANDOM:
            raise UserError(f"{encoder.name}: {encoder.library} could not make it ({type(error).__name__}: {reason})") from None
        source = f"{encoder.library}:{encoder.model}" + (f"/{encoder.tag}" if encoder.tag else "")
        raise UserError(
            f"{encoder.name}: no weights could be downloaded ({type(error).__name__}: {reason}); run the same command once on a machine "
            f"with internet and copy its cache (HF_HOME, TORCH_HOME), or give a file: {source}@FILE. Random weights only on request: "
            f"{source}@random"
        ) from None


def _refuse_too_many(shop: Shop, images: list[str | None], bad: np.ndarray, named: int, max_bad_images: float) -> None:
    if len(bad) <= max_bad_images * named:
        return
    reasons: list[tuple[str, str]] = []
    for row in bad[:3]:
        try:
            read_picture(shop.folder, str(images[row]))
        except PictureError as error:
            reasons.append((error.file, error.reason))
    examples = "; ".join(f"row {row}, images/{file}: {reason}" for row, (file, reason) in zip(bad, reasons, strict=False))
    fix = f"{len(bad):,} of {named:,} pictures are unreadable ({examples}); {fix_for(reasons)}"
    raise DataError(shop.folder / "items.parquet", column="image", fix=fix)
