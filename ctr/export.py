"""Export a CTR model to serve: python -m ctr.export --run RUN --out DIR. Score with python -m ctr.score, or with your own server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from run.config import parse
from run.errors import entry

ABOUT = """Write everything needed for scoring into one folder:
  model.pt2     the model as a program of torch.export; it runs without this toolkit
  vocabulary/   which values have rows, how numbers are standardised, how an embedding becomes the image feature
  lookup/       the same values as sorted hashes, mapped from the disk
  log/          what the log says of items, values and users at one moment, and which items were clicked together
  items/ users/ the known ones as arrays, mapped from the disk
  encoder/      weights that embed new pictures (of an encoder trained here, if found)
  meta.json     form, sizes, versions and hashes, written last"""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of an export."""

    run: Path = Path("runs/ctr")  # run folder of ctr.train
    out: Path = Path("runs/export")  # folder to write
    data: str = ""  # shop folder whose items and users are exported; empty: the run's own
    embeddings: Path | None = None  # embeddings folder of those items; None: the run's own
    as_of: int = 0  # Unix s at which the log's counts are taken; 0: after its last impression
    log_only: bool = False  # count the log again for an existing export of the same run and catalogue; nothing else is written
    encoder_run: Path | None = None  # run folder of the encoder (pretrain.train); None: the folder around the embeddings


@entry
def main(argv: list[str] | None = None) -> None:
    """Parse flags and export."""
    config = parse(ExportConfig, argv, prog="python -m ctr.export", description=ABOUT)
    from ctr.serving.exporter import export, refresh_log
    from ctr.serving.trained_run import open_run
    from run.folder import locked

    with locked(config.out):
        trained_run = open_run(config.run, data=config.data, embeddings=config.embeddings)
        if config.log_only:
            moment = refresh_log(trained_run, config.out, as_of=config.as_of or None)
            print(f"log counted as of {moment}; written to {config.out / 'log'}")
            return
        meta = export(trained_run, config.out, encoder_run=config.encoder_run, as_of=config.as_of or None)
    pictures = "new pictures are embedded" if meta["encoder"] else "there is no encoder: items with new pictures count as having none"
    print(f"{meta['form']}: {meta['items']:,} items, {meta['users']:,} users, {pictures}; exported to {config.out}")


if __name__ == "__main__":
    raise SystemExit(main())
