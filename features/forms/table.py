"""The forms in which a picture may be fed to the CTR model: the only list of them.

A new form is a file here and an entry in FORMS.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from features.forms.cluster_id import ClusterId
from features.forms.form import Form
from features.forms.semantic_id import SemanticId
from features.forms.sim_attention import SimAttention
from features.forms.sim_score import SimScore
from features.forms.sim_tier import SimTier
from features.forms.vector import Vector
from run.errors import SettingError

FORMS: dict[str, Form] = {
    "cluster_id": ClusterId(),
    "semantic_id": SemanticId(),
    "sim_attention": SimAttention(),
    "sim_score": SimScore(),
    "sim_tier": SimTier(),
    "vector": Vector(),
}
FORM_NAMES = tuple(FORMS)
NO_FORM = "none"  # the baseline: no picture is fed
JOIN = "+"  # between the forms that one model is fed


_SETTINGS: Any = tuple(dict.fromkeys(form.settings for form in FORMS.values() if form.settings is not None))


@dataclass(frozen=True, kw_only=True)
class FormSettings(*_SETTINGS):
    """The settings of all forms: flags of ctr.train and eval.compare."""

    def __post_init__(self):
        for kind in _SETTINGS:
            kind.__post_init__(self)


def forms_of(name: str) -> tuple[str, ...]:
    """The forms that a name means, in the order of FORMS; none for the baseline's.

    >>> forms_of("sim_tier + cluster_id"), forms_of("none")
    (('cluster_id', 'sim_tier'), ())
    """
    order = {form: place for place, form in enumerate(FORMS)}
    found = [form.strip() for form in name.split(JOIN)]
    return () if name == NO_FORM else tuple(sorted(found, key=lambda form: order.get(form, len(order))))


def check_form(setting: str, name: str) -> None:
    """Refuse a name that is neither a form nor several, each once, joined by "+".

    Raises:
        SettingError: names the unknown form, and those that are known.
    """
    for form in forms_of(name):
        if not form:
            raise SettingError(setting, name, f"give a form on both sides of each {JOIN}, such as {FORM_NAMES[-2]}{JOIN}{FORM_NAMES[-1]}")
        if "," in form:
            raise SettingError(
                setting, name, f"one model is fed one feature; several forms of it are joined by {JOIN}: {name.replace(',', JOIN)}"
            )
        if form not in FORMS:
            near = difflib.get_close_matches(form, FORMS, n=1)
            meant = f" did you mean {near[0]!r}?" if near else ""
            alone = f" {NO_FORM}, the baseline, stands alone;" if form == NO_FORM else meant
            raise SettingError(setting, name, f"no form {form!r};{alone} there are {', '.join(FORMS)}, and any of them joined by {JOIN}")
    if len(set(forms_of(name))) < len(forms_of(name)):
        raise SettingError(setting, name, "a form is named twice; name each once")


def places_of(name: str) -> tuple[str, ...]:
    """The places of forms in the CTR model, one for each form."""
    return tuple(FORMS[form].place for form in forms_of(name))


def settings_of(name: str, settings: FormSettings) -> dict[str, object]:
    """The settings that the forms read, which their results depend on."""
    own = [FORMS[form].settings for form in forms_of(name)]
    return {key: getattr(settings, key) for kind in own for key in getattr(kind, "__dataclass_fields__", ())}


def form_modules(name: str) -> tuple[str, ...]:
    """The dotted names of the modules that hold the forms."""
    return tuple(type(FORMS[form]).__module__ for form in forms_of(name))


def reads_pairs(name: str) -> bool:
    """Whether one of the forms learns from items shown and clicked before."""
    return any(FORMS[form].reads_pairs for form in forms_of(name))
