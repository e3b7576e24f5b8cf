"""Where a run's data comes from: a built-in world made on the spot, or the user's own shop folder."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data.identity import shop_fingerprint
from data.worlds.build import WORLDS, make_world
from data.worlds.defaults import ITEMS, SEED, SESSIONS, USERS, WORLD_NAMES
from run.config import one_of, positive
from run.errors import SettingError, UserError
from run.folder import Stage
from run.source_code import code_hash

if TYPE_CHECKING:
    from data.log.shop_folder import Shop
    from data.pictures.reader import Pictures

__all__ = ["PRESETS", "SourceConfig", "shop_fingerprint", "shop_folder"]

LARGE = 40_000_000  # impressions and events
# sizes of a built-in world under each preset
PRESETS: dict[str, dict[str, int]] = {"tiny": {"users": 400, "items": 300, "sessions": 3_000}, "small": {}, "paper": {}}


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Which log and pictures a run works on."""

    data: str = "shop"  # shop | fashion (built-in worlds with simulated clicks) | the path of a shop folder
    users: int = USERS  # of a built-in world; with the default sessions, some 90 clicks per user, as in the paper's log (98)
    items: int = ITEMS  # of a built-in world
    sessions: int = SESSIONS  # of a built-in world; about 10 impressions each
    world_seed: int = SEED  # of a built-in world; --seeds never moves the data
    fashion_dir: Path | None = None  # folder with Fashion-MNIST's four IDX files
    split_fractions: tuple[float, float, float, float] = (0.4, 0.4, 0.1, 0.1)  # of impressions: pretrain, train, valid, test
    allow_unordered_split: bool = False  # accept a `split` column that goes back in time; the report says so
    # where the log is kept: memory | disk (read stretch by stretch into mapped arrays in the run folder) | auto: disk above 40 million
    # impressions and events
    ingest: str = "auto"
    max_bad_images: float = 0.01  # share of unreadable pictures above which a run stops
    # where pictures are read from: store (decoded once, into the run folder) | files (decoded whenever they are read: slower, the same
    # pixels, no copy on disk: for a catalogue too large for a store)
    pictures_from: str = "store"

    def __post_init__(self):
        for name in ("users", "items", "sessions"):
            positive(name, getattr(self, name))
        if not 0 <= self.max_bad_images <= 1:
            raise SettingError("max_bad_images", self.max_bad_images, "give a share from 0 to 1")
        one_of("ingest", self.ingest, ("auto", "memory", "disk"))
        one_of("pictures_from", self.pictures_from, ("store", "files"))

    def shop(self, root: Path) -> Shop:
        """The shop, loaded once per process."""
        root = root.resolve()
        folder = shop_folder(self, root)
        log = self._ingested(folder, root)
        return open_shop(folder, self.split_fractions, self.allow_unordered_split, log)

    def _ingested(self, folder: Path, root: Path) -> Path | None:
        """The folder's log as arrays on disk, made if missing; None: it is to be read into memory."""
        if self.ingest == "memory" or (self.ingest == "auto" and not is_large(folder)):
            return None
        from data.log.ingest import ingest

        stage = Stage(root, "log", self.key(root) | {"code": code_hash("data.log.ingest")})
        if not stage.done:
            ingest(folder, stage.folder / "log", fractions=self.split_fractions, allow_unordered_split=self.allow_unordered_split)
            stage.finish({})
        return stage.folder / "log"

    def pictures(self, root: Path, *, size: int, jobs: int) -> Pictures:
        """The shop's pictures, `size` x `size` pixels.

        A store is decoded by `jobs` threads into `root/pictures/` if missing; of files, only the headers are checked, once.
        """
        shop, options = self.shop(root), {"size": size, "workers": jobs, "max_bad_images": self.max_bad_images}
        if self.pictures_from == "files":
            from data.pictures.reader import checked_files

            stage = Stage(root, "pictures/files", {"shop": _fingerprint_once(shop.folder)})
            return checked_files(shop, stage.folder, **options)
        from data.pictures.store import build_store

        return build_store(shop, self.store_folder(root, size=size), **options)

    def store_folder(self, root: Path, *, size: int) -> Path:
        """The folder of the store of the shop's pictures, whether or not it exists."""
        return Stage(root, f"pictures/{size}px", {"shop": _fingerprint_once(shop_folder(self, root)), "size": size}).folder

    def key(self, root: Path) -> dict[str, object]:
        """What a stage depends on of the data: its content, its split, and the code that reads it."""
        content = _fingerprint_once(shop_folder(self, root))
        split = {"fractions": self.split_fractions, "unordered": self.allow_unordered_split}
        return {"shop": content, **split, "log_code": code_hash("data.log.shop_folder", "data.log.ingest")}

    @property
    def is_world(self) -> bool:
        return self.data in WORLD_NAMES

    def resolved(self) -> SourceConfig:
        """The same source with absolute paths, for a run folder's config.toml: it may be read from another working directory."""
        data = self.data if self.is_world or not self.data else str(Path(self.data).absolute())
        return replace(self, data=data, fashion_dir=None if self.fashion_dir is None else self.fashion_dir.absolute())


def shop_folder(config: SourceConfig, root: Path) -> Path:
    """The shop folder to work on, as an absolute path; a built-in world is made under `root` if missing.

    Raises:
        UserError: there is no such folder, or a name means both a world and a folder.
    """
    if not config.is_world:
        folder = Path(config.data)
        if not folder.is_dir():
            raise UserError(f"--data {config.data}: no such folder; give a shop folder, or one of {', '.join(WORLD_NAMES)}")
        return folder.resolve()
    if (Path(config.data) / "impressions.parquet").is_file():
        here = f"a built-in world, and a shop folder here has the same name; give ./{config.data} for the folder, or rename it"
        raise UserError(f"--data {config.data}: {here}")
    size = {"users": config.users, "items": config.items, "sessions": config.sessions, "seed": config.world_seed}
    stage = Stage(root.resolve(), f"data/{config.data}", size | {"code": WORLDS[config.data].code()})
    world = stage.folder / "world"
    if not stage.done:
        make_world(config.data, world, fashion_dir=config.fashion_dir, **size)
        stage.finish({})
    return world


def is_large(folder: Path) -> bool:
    """Whether a shop folder's log is better left on disk, by the number of rows in its tables."""
    if not (folder / "impressions.parquet").is_file():
        return False
    from data.log.ingest import log_rows

    return log_rows(folder) > LARGE


@functools.lru_cache(maxsize=2)
def open_shop(folder: Path, fractions: tuple[float, float, float, float], allow_unordered_split: bool, log: Path | None) -> Shop:
    """`load_shop` of an absolute path, or `open_log` of a `log` made by `ingest`; once per process."""
    if log is not None:
        from data.log.ingest import open_log

        return open_log(log, folder)
    from data.log.shop_folder import load_shop

    return load_shop(folder, fractions=fractions, allow_unordered_split=allow_unordered_split)


@functools.lru_cache(maxsize=4)
def _fingerprint_once(folder: Path) -> str:
    """`shop_fingerprint`, once per process, like the shop: every stage of a run asks for it."""
    return shop_fingerprint(folder)
