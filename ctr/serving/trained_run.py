"""A finished CTR run, opened for use: its rules and weights, and the data and embeddings it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctr.config import SETTINGS
from ctr.inputs.vocabulary_files import ModelSpec, read_model_spec
from data.source import SourceConfig
from run.config import read_recipe, with_settings
from run.errors import UserError
from run.files import read_json

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from ctr.inputs.encode import EncodedCatalogue
    from data.log.shop_folder import Shop
    from features.image_feature import ImageFeature
    from pretrain.config import PretrainConfig


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What `open_run` found."""

    folder: Path
    spec: ModelSpec
    weights: dict[str, Tensor]
    source: SourceConfig
    trained_on: str  # fingerprint of the shop that `source` must be; "": any, because the caller chose it
    flag: str  # the flag that names another shop
    embeddings: Path | None  # embeddings folder; None: the model has no image feature

    def shop(self) -> Shop:
        """The shop that the run was trained on, or the one given instead.

        Raises:
            UserError: the run's own shop is missing, or is not the one it was trained on.
        """
        from data.source import shop_fingerprint, shop_folder

        if not self.source.is_world and not Path(self.source.data).is_dir():
            given = f"{self.flag} {self.source.data}" if not self.trained_on else f"{self.folder / 'config.toml'}: data {self.source.data}"
            raise UserError(f"{given}: no such folder; give {self.flag}, the shop folder")
        if self.trained_on and shop_fingerprint(shop_folder(self.source, self.folder)) != self.trained_on:
            where = self.source.data
            raise UserError(f"{where}: not the data that {self.folder} was trained on; to apply the model to it, give it as {self.flag}")
        return self.source.shop(self.folder)

    def feature(self, item_id: pl.Series) -> ImageFeature:
        """The image feature of the items of these ids, by the run's own rule.

        Raises:
            UserError: the embeddings cannot be read, or the run has no rule.
        """
        from features.embeddings import read_embeddings
        from features.image_feature import no_image

        if not self.spec.layout.pictured:
            return no_image(len(item_id))
        if self.spec.rule is None or self.embeddings is None:
            raise UserError(f"{self.folder}: has no rule for its image feature; train the model again")
        return self.spec.rule.feature(read_embeddings(self.embeddings, item_id))

    def catalogue(self, shop: Shop) -> EncodedCatalogue:
        """The arrays of a shop's items and users, by the run's own rules.

        Raises:
            UserError: as `feature`, or the vocabularies do not belong to the weights.
        """
        from ctr.inputs.encode import encode_catalogue

        catalogue = encode_catalogue(shop, self.feature(shop.items["item_id"]), self.spec.config, self.spec.vocabularies)
        if catalogue.layout != self.spec.layout:
            raise UserError(f"{self.folder}: its vocabulary is not that of its weights; train the model again")
        return catalogue


def open_run(folder: Path, *, data: str = "", flag: str = "--data", embeddings: Path | None = None) -> TrainedRun:
    """Read a run folder of ctr.train, or one CTR stage of eval.compare.

    Args:
        data: a shop folder to use instead of the run's own; a stage of eval.compare needs it.
        flag: the flag of the calling command that gives `data`, for errors.
        embeddings: an embeddings folder to use instead of the run's own; likewise.

    Raises:
        UserError: the folder is an export, the run is not finished, or it does not record where its data or embeddings are.
    """
    from ctr.training.weights import read_weights

    if (folder / "model.pt2").exists():
        raise UserError(f"{folder}: is an export; give the run folder of ctr.train that it was made of")
    if (folder / "checkpoints").exists() and not (folder / "result.json").exists():
        raise UserError(f"{folder}: not trained to its end; the command that began it resumes it")
    spec = read_model_spec(folder)
    weights, noted = read_weights(folder / "best.safetensors")
    if noted.get("form") != spec.layout.form:
        raise UserError(f"{folder / 'best.safetensors'}: weights of another form than {folder / 'vocabulary'}; train the model again")
    settings = read_recipe(folder / "config.toml") if (folder / "config.toml").exists() else {}
    if not settings and not data:
        raise UserError(f"{folder}: has no config.toml that names its data; give {flag}, the shop folder it was trained on")
    source = with_settings(SourceConfig(), settings.get("source", {}), source=str(folder / "config.toml"))
    trained_on = ""
    if data:
        source = SourceConfig(data=data, allow_unordered_split=True)
    elif (folder / SETTINGS).exists():
        trained_on = read_json(folder / SETTINGS).get("shop", "")
    if not spec.layout.pictured:
        embeddings = None
    elif embeddings is None:
        embeddings = _own_embeddings(folder, settings)
    return TrainedRun(folder=folder, spec=spec, weights=weights, source=source, trained_on=trained_on, flag=flag, embeddings=embeddings)


def encoder_of(embeddings: Path, run: Path | None) -> tuple[Path, PretrainConfig] | None:
    """The weights that embeddings were made with, and the settings of their training; None where they cannot be found.

    Args:
        run: the run folder of pretrain.train; None: the folder around the embeddings, if it holds the encoder.

    Raises:
        UserError: `run` holds no encoder, or another one.
    """
    from pretrain.config import PretrainConfig
    from run.folder import file_hash

    folder = embeddings.parent if run is None else run
    weights = folder / "best.safetensors"
    made_with = read_json(embeddings / "meta.json").get("hash")
    if file_hash(weights) is None or file_hash(weights) != made_with:
        if run is None:
            return None
        raise UserError(f"{weights}: missing, or not the encoder that {embeddings} was made with; give the run folder that it came from")
    if (folder / "config.toml").exists():
        settings = read_recipe(folder / "config.toml").get("pretrain", {})
    else:
        settings = read_json(folder / "stage.json")["key"]["pretrain"]
        settings = {name: value for name, value in settings.items() if name in ("backbone", "dim", "image_size", "store_size")}
    return weights, with_settings(PretrainConfig(), settings, source=str(folder))


def _own_embeddings(folder: Path, settings: dict[str, Any]) -> Path:
    """The embeddings folder that ctr.train took or made."""
    if "embeddings" in settings:
        return Path(settings["embeddings"])
    from pretrain.methods.table import default_encoders

    made = sorted(folder.glob(f"encoders/{default_encoders()[0]}-seed*/embeddings"))  # ctr.train's own, where none were given
    if len(made) != 1:
        raise UserError(f"{folder}: does not say which embeddings its model was trained on; give --embeddings")
    return made[0]
