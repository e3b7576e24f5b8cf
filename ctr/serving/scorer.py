"""An exported model that scores one user's candidates, new ones and new pictures included. Light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from run.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from ctr.serving.request import Id, Request
    from features.picture_encoder import Picture


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to one request."""

    items: list[Id]  # the candidates' ids, in the order of the request
    probabilities: np.ndarray  # (C,) float64, of a click
    unknown_user: bool  # the export does not know the user, and the request does not describe them
    unknown_items: list[Id]  # candidates and history items that the export does not know and the request does not describe
    without_picture: list[Id]  # of a model that reads pictures: candidates without one
    refused_pictures: dict[Id, str]  # pictures that count as missing, and why; the reason begins with the path, where one was given


class Scorer:
    """An exported model with its catalogue; `Scorer.load(folder)`.

    Args:
        folder: what ctr.export wrote.
    """

    def __init__(self, folder: Path):
        import torch

        from ctr.serving.model_inputs import ExportedCatalogue
        from features.picture_encoder import PictureEncoder
        from run.files import read_json

        if not (folder / "meta.json").is_file():
            raise UserError(f"{folder}: {_no_export(folder)}")
        self.folder = folder
        self.meta = read_json(folder / "meta.json")
        _check(folder, self.meta)
        self.catalogue = ExportedCatalogue(folder, self.meta)
        self.encoder = PictureEncoder(folder / "encoder") if self.meta["encoder"] else None
        self.program = torch.export.load(folder / "model.pt2").module()

    @classmethod
    def load(cls, folder: Path | str) -> Scorer:
        """Open an export.

        Raises:
            UserError: it is unfinished, of another version or form, or a file has changed since it was written.
        """
        return cls(Path(folder))

    def reload_log(self) -> int:
        """Read the counts that `ctr.export --log-only` has written since; the model stays loaded. Requests in progress use the old ones.

        Returns:
            the moment they were counted at, in Unix s.

        Raises:
            UserError: the folder now holds another export.
        """
        from ctr.serving.model_inputs import ExportedCatalogue
        from run.files import read_json

        meta = read_json(self.folder / "meta.json")
        if meta | {"as_of": None} != self.meta | {"as_of": None}:
            raise UserError(f"{self.folder}: another export than the one that was loaded; load it with Scorer.load")
        self.catalogue, self.meta = ExportedCatalogue(self.folder, meta), meta
        return meta["as_of"]

    def score(self, **asked: Any) -> Answer:
        """Click probabilities of one user's candidates; the fields are those of `ctr.serving.request.check_request`.

        Raises:
            RequestError: a field of the request is missing, unknown or of the wrong type.
        """
        return self._answer(self.catalogue.check(asked), Path())

    def score_file(self, path: Path | str) -> Answer:
        """The answer to a request in a JSON file; relative paths of its pictures are taken from the file's folder.

        Raises:
            UserError: the file is missing or no JSON object, or what `score` raises; the message begins with the file's path.
        """
        from ctr.serving.request import RequestError
        from run.files import read_json

        asked = read_json(Path(path))
        if not isinstance(asked, dict):
            raise UserError(f"{path}: holds no object; docs/serving.md says what a request holds")
        try:
            return self._answer(self.catalogue.check(asked), Path(path).parent)
        except RequestError as error:
            raise UserError(f"{path}: {error.detail}") from None

    def _answer(self, request: Request, folder: Path) -> Answer:
        """The answer; relative paths of pictures are taken from `folder`."""
        import numpy as np
        import torch

        pictures = {item: picture if isinstance(picture, bytes) else folder / picture for item, picture in request.pictures.items()}
        given, refused = self._embedded(pictures)
        model_inputs, notes = self.catalogue.model_inputs(request, given)
        with torch.inference_mode():
            logit = self.program(*model_inputs).double().numpy()
        return Answer(
            items=[item.id for item in request.candidates],
            probabilities=0.5 * (1 + np.tanh(0.5 * logit)),
            unknown_user=notes.unknown_user,
            unknown_items=notes.unknown_items,
            without_picture=notes.without_picture,
            refused_pictures=refused,
        )

    def _embedded(self, pictures: Mapping[Id, Picture]) -> tuple[dict[Id, np.ndarray], dict[Id, str]]:
        """Unit embeddings (D,) of the pictures of a request, zeros where one cannot be read; and the reasons."""
        import numpy as np

        if not pictures:
            return {}, {}
        if not self.catalogue.spec.layout.pictured:
            return {}, dict.fromkeys(pictures, "the model reads no pictures")
        if self.encoder is None:
            return {}, dict.fromkeys(pictures, "the export holds no encoder; give ctr.export --encoder-run")
        vectors, reasons = self.encoder.embed(list(pictures.values()))
        refused = {
            item: reason if isinstance(picture, bytes) else f"{picture}: {reason}"
            for (item, picture), reason in zip(pictures.items(), reasons, strict=True)
            if reason
        }
        return dict(zip(pictures, np.asarray(vectors), strict=True)), refused


def _no_export(folder: Path) -> str:
    """What to do about a folder without meta.json."""
    if (folder / "result.json").exists() or (folder / "checkpoints").exists():
        return f"is a run, not an export of it; write one with python -m ctr.export --run {folder} --out EXPORT, and give that folder"
    return f"not a finished export; write one with python -m ctr.export --run RUN --out {folder}"


def _check(folder: Path, meta: dict[str, Any]) -> None:
    """Refuse an export of another version or form, or one whose files have changed since."""
    from ctr.serving.exporter import EXPORT_VERSION
    from features.forms.table import FORM_NAMES, forms_of
    from run.folder import file_hash

    if meta.get("version") != EXPORT_VERSION:
        raise UserError(f"{folder / 'meta.json'}: version {meta.get('version')}, but {EXPORT_VERSION} is read here; export the model again")
    if not set(forms_of(meta.get("form", ""))) <= set(FORM_NAMES):
        raise UserError(f"{folder / 'meta.json'}: form {meta.get('form')!r}; there are {', '.join(FORM_NAMES)}: export the model again")
    for name, wanted in meta["files"].items():
        if file_hash(folder / name) != wanted:
            raise UserError(f"{folder / name}: missing, or not the file that was exported; export the model again")
