"""The report's page: templates of this folder; all values filled in are escaped."""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

_THUMBNAIL = 96  # pixels; larger pictures are scaled down to keep the file small


@cache
def _templates() -> Environment:
    folder = Path(__file__).parent
    made = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["lines"] = lambda text: Markup("<br>").join(escape(text).split("\n"))
    return made


def render(template: str, **values: Any) -> str:
    """A template of this folder with its values filled in.

    Raises:
        jinja2.UndefinedError: the template reads a value that is not given.
    """
    return _templates().get_template(template).render(**values)


def data_uri(picture: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 as a data URL of a small PNG."""
    from PIL import Image

    small = Image.fromarray(np.ascontiguousarray(picture, dtype=np.uint8))
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
