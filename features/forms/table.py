"""The forms in which a picture may be fed to the CTR model: the only list of them.

A new form is a file here and an entry in FORMS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from features.forms.cluster_id import ClusterId
from features.forms.form import Form
from features.forms.sim_score import SimScore
from features.forms.vector import Vector

FORMS: dict[str, Form] = {"cluster_id": ClusterId(), "sim_score": SimScore(), "vector": Vector()}
FORM_NAMES = tuple(FORMS)
NO_FORM = "none"  # the baseline: no picture is fed


_SETTINGS: Any = tuple(dict.fromkeys(form.settings for form in FORMS.values() if form.settings is not None))


@dataclass(frozen=True, kw_only=True)
class FormSettings(*_SETTINGS):
    """The settings of all forms: flags of ctr.train and eval.compare."""


def place_of(form: str) -> str:
    """The place of a form in the CTR model; "" for the baseline."""
    return "" if form == NO_FORM else FORMS[form].place


def settings_of(form: str, settings: FormSettings) -> dict[str, object]:
    """The settings that a form reads, which its results depend on."""
    own = None if form == NO_FORM else FORMS[form].settings
    return {name: getattr(settings, name) for name in getattr(own, "__dataclass_fields__", ())}


def module_of(form: str) -> str:
    """The dotted name of the module that holds a form."""
    return type(FORMS[form]).__module__
