"""The report's building blocks: sections, cards, tables and pictures as HTML. What a reader wrote is escaped here."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np

_THUMBNAIL = 96  # pixels; larger pictures are made smaller, for the file's size


def section(heading: str, lead: str, content: str) -> str:
    """A part of the page; "" where there is no content."""
    if not content:
        return ""
    lead = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f"<section><h2>{escape(heading)}</h2>{lead}{content}</section>"


def card(heading: str, content: str) -> str:
    """A framed piece with a small heading."""
    return f'<div class="card"><h3>{escape(heading)}</h3>{content}</div>'


def cards(pieces: Sequence[str], least: int) -> str:
    """Pieces side by side, each at least that many pixels wide where the page is; "" for none."""
    return f'<div class="cards" style="--least:{least}px">{"".join(pieces)}</div>' if pieces else ""


def grid(headings: Sequence[str], rows: Sequence[str]) -> str:
    """A table of ready <tr> rows that scrolls sideways where the page is narrow."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="card scroll">{table}</div>'


def bullets(lines: Sequence[str]) -> str:
    """A framed list; "" for none."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="notes card">{items}</ul>' if items else ""


def image(picture: np.ndarray, alt: str) -> str:
    """An <img> with the picture (H, W, 3) uint8 inside, as PNG."""
    from PIL import Image

    small = Image.fromarray(np.ascontiguousarray(picture, dtype=np.uint8))
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "PNG", optimize=True)
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
