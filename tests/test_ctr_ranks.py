"""Several ranks train like one: the same losses and predictions, and checkpoints that any number of ranks can resume."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open

from ctr.inputs.sampler import share
from ctr.train import main
from features.forms.table import FORM_NAMES
from run.folder import read_metrics
from tests.ctr_ranks import train
from tests.ranks import with_ranks
from tests.shops import write_shop

STOPPED = 25


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of one training: on one rank; on two and four, table-wise or row-wise; started on two, resumed on one or four."""
    root = tmp_path_factory.mktemp("ranks")

    def of_ranks(ranks, trainings):
        words = [{**training, "folder": str(root / training["folder"])} for training in trainings]
        process = with_ranks(ranks, "tests.ctr_ranks", [json.dumps(words)], root / f"{ranks}.txt")
        assert process.wait() == 0, (root / f"{ranks}.txt").read_text()

    train(root / "one")
    train(root / "one rowwise", table_optimizer="rowwise_adagrad", ema_tables=False)
    every = {"folder": "two forms", "form": "+".join(FORM_NAMES), "retrieve": 3, "similarity_place": "buckets", "adapter": "gated"}
    train(**every | {"folder": root / "one forms"})
    begun = {"folder": "begun", "stop_at": STOPPED, "checkpoint_seconds": 0, "table_sharding": "row_wise"}
    rows = {"table_sharding": "row_wise"}
    rowwise = {"folder": "two rowwise", "table_optimizer": "rowwise_adagrad", "ema_tables": False}
    of_ranks(2, [{"folder": "two", "table_sharding": "table_wise"}, begun, {**rowwise, **rows}, every])
    for ending in ("two then one", "two then four"):
        shutil.copytree(root / "begun", root / ending)
    train(root / "two then one")
    of_ranks(4, [{"folder": "four", **rows}, {"folder": "two then four"}])
    return root


def losses(folder):
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]


def valid_auc(folder):
    return json.loads((folder / "result.json").read_text())["valid_auc"]


WAYS = [
    ("two", "one"), ("four", "one"), ("two rowwise", "one rowwise"), ("two forms", "one forms"), ("two then one", "one"),
    ("two then four", "one"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "other"), WAYS)
def test_any_number_of_ranks_gives_the_losses_and_the_auc_of_one(trained, name, other):
    ours, wanted = losses(trained / name), losses(trained / other)
    assert len(ours) == len(wanted) == 62
    np.testing.assert_allclose(ours[:50], wanted[:50], atol=1e-5)
    assert valid_auc(trained / name) == pytest.approx(valid_auc(trained / other), abs=1e-3)


@pytest.mark.parametrize(("name", "other"), WAYS)
def test_predictions_and_weights_of_all_ranks_are_in_one_file(trained, name, other):
    ours, wanted = (pl.read_parquet(trained / folder / "predictions.parquet") for folder in (name, other))
    assert ours.drop("score").equals(wanted.drop("score"))
    np.testing.assert_allclose(ours["score"], wanted["score"], atol=1e-3)
    with safe_open(trained / name / "best.safetensors", "pt") as one, safe_open(trained / other / "best.safetensors", "pt") as two:
        assert sorted(one.keys()) == sorted(two.keys())
        for key in one.keys():  # noqa: SIM118 (no mapping)
            np.testing.assert_allclose(one.get_tensor(key), two.get_tensor(key), atol=2e-3, err_msg=key)
    assert not (trained / name / "checkpoints").exists()


def test_the_shares_of_all_ranks_make_up_the_batch():
    places = np.arange(7, 20)
    for ranks in (1, 2, 4, 20):
        parts = [share(places, rank, ranks) for rank in range(ranks)]
        assert np.concatenate(parts).tolist() == places.tolist()
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_command_trains_under_torchrun_as_it_does_alone(tmp_path):
    folder = write_shop(tmp_path / "shop", pictures=False)
    words = ["--data", str(folder), "--image-feature", "none", "--preset", "tiny", "--threads", "1", "--out"]
    both = with_ranks(2, "ctr.train", [*words, str(tmp_path / "2")], tmp_path / "2.txt")
    assert main([*words, str(tmp_path / "1")]) == 0
    assert both.wait() == 0, (tmp_path / "2.txt").read_text()
    assert (tmp_path / "2.txt").read_text().count("none, test split: AUC") == 1
    one, two = (pl.read_parquet(tmp_path / ranks / "predictions.parquet") for ranks in ("1", "2"))
    np.testing.assert_allclose(two["score"], one["score"], atol=1e-4)
