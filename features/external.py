"""External encoders, frozen: the catalogue is embedded once for all seeds, as a cached stage."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.encoder_names import External, encoder_names, parse_external, safe_name
from run.folder import Stage, hash_of_files
from run.source_code import code_hash
from run.versions import installed

if TYPE_CHECKING:
    from data.log.shop_folder import Shop
    from data.source import SourceConfig

__all__ = ["encoder_names", "external_stage", "make_external", "safe_name"]
# modules that turn a name or a file into embeddings, by library; and modules imported by these that only name encoders or find data
_CODE = {"file": ("features.external_vectors",)}
_CODE_OF_NETWORKS = ("features.external_networks",)
_NOT_RUN = ("features.encoder_names", "pretrain.methods.table", "pretrain.methods.user_methods", "data.source")
_PACKAGES = {"timm": ("timm",), "open_clip": ("open_clip_torch", "timm"), "torchvision": (), "file": ()}


def external_stage(source: SourceConfig, root: Path, name: str) -> Stage:
    """The stage of the catalogue embedded by this encoder, made or not; its key: name, the file's content, shop, code, versions."""
    from data.source import shop_fingerprint, shop_folder

    encoder = parse_external(name)
    key: dict[str, Any] = {"shop": shop_fingerprint(shop_folder(source, root)), "library": encoder.library, "model": encoder.model}
    key |= {"tag": encoder.tag, "weights": encoder.weights if encoder.file is None else content_hash(encoder.file)}
    key["code"] = code_hash("features.external", *_CODE.get(encoder.library, _CODE_OF_NETWORKS), without=_not_run(encoder))
    libraries = ("numpy",) if encoder.library == "file" else ("torch", "torchvision", "numpy", "pillow")
    key["versions"] = installed(*libraries, *_PACKAGES[encoder.library])
    return Stage(root, f"encoders/{safe_name(name)}", key)


def _not_run(encoder: External) -> tuple[str, ...]:
    """Modules that are imported but not run for this encoder."""
    return (*_NOT_RUN, "features.external_networks" if encoder.library == "file" else "features.external_vectors")


def make_external(source: SourceConfig, root: Path, name: str, *, workers: int = 0) -> Stage:
    """Embed the catalogue if missing; `folder / "embeddings"` is the embeddings folder.

    Args:
        workers: threads that decode and encode, without effect on numbers; 0: one per CPU core.
    """
    stage = external_stage(source, root, name)
    if not stage.done:
        began = time.monotonic()
        embedded = embed_shop(
            source.shop(root), name, stage.folder / "embeddings", key=stage.hash, workers=workers, max_bad_images=source.max_bad_images
        )
        stage.finish({"pictures": embedded, "seconds": time.monotonic() - began})
    return stage


def embed_shop(shop: Shop, name: str, out: Path, *, key: str, workers: int, max_bad_images: float) -> int:
    """Write the embeddings folder `out`; returns how many items have an embedding.

    Args:
        key: a hash of what the embeddings depend on; the partial work of a killed call in `out` is only reused under the same key.
    """
    import sys

    from features.embeddings import write_embeddings
    from pretrain.similarity import normalise

    encoder, parts = parse_external(name), out / f".parts-{key}"
    if encoder.library == "file":
        from features.external_vectors import read_vectors

        vectors = read_vectors(Path(encoder.weights), shop.items["item_id"])
        held = int(vectors.any(1).sum())
        print(f"{name}: {held:,} of {len(vectors):,} items have an embedding of {vectors.shape[1]} numbers", file=sys.stderr)
    else:
        from features.external_networks import embed_pictures

        vectors = embed_pictures(encoder, shop, parts=parts, workers=workers, max_bad_images=max_bad_images)
    write_embeddings(out, shop.items["item_id"], normalise(vectors), {"encoder": name, "hash": key, "normalised": True})
    shutil.rmtree(parts, ignore_errors=True)
    return int(vectors.any(1).sum())


def content_hash(path: Path) -> str:
    """A hash of a file's content and of the id files next to it, or of an embeddings folder's vectors and ids."""
    from features.external_vectors import id_files

    if path.is_dir():
        return hash_of_files((file.name, file) for file in (path / "vectors.npy", path / "items.parquet") if file.is_file())
    return hash_of_files((file.suffix, file) for file in [path, *id_files(path)])
