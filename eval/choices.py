"""The encoders and forms that a comparison can be asked for, read from the tables that list them."""

from __future__ import annotations

from run.source_code import code_hash

# Until the tables of methods and forms offer what follows themselves, it is derived here and nowhere else in eval/.
NO_RESULT = ("checkpoint_seconds", "keep_checkpoints", "threads", "table_sharding")  # settings of a CTR model that move no number
FORM_NAMES = ("cluster_id", "sim_score", "vector")


def reads_clusters(form: str) -> bool:
    """True for a form whose numbers depend on how many clusters are asked for."""
    return form == "cluster_id"


def form_code(form: str) -> str:
    """A hash of the code between embeddings and predictions of a CTR model with this form ("none": the baseline)."""
    modules = ("ctr.training.loop", "eval.row_feature") if form != "none" else ("ctr.training.loop",)
    return code_hash(*modules, without=("data.source",))
