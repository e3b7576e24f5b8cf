"""An export's folder: never written over a run, refused if it is damaged, and read again once its counts were taken again."""

import json
import re
import shutil

import pytest

from ctr.export import main as export
from ctr.score import Scorer
from ctr.serving.exporter import refresh_log
from ctr.serving.trained_run import open_run
from data.log.shop_folder import load_shop
from run.errors import UserError
from tests.trained_ctr import asked_of, sessions_of


def test_a_scorer_reads_counts_taken_again_as_if_loaded_anew_and_refuses_another_export(made, tmp_path):
    folder, run, first = made("cluster_id")
    out = tmp_path / "export"
    shutil.copytree(first, out)
    shop = load_shop(folder)
    session = sessions_of(shop)[0]
    _, request = asked_of(shop, session)
    scorer = Scorer.load(out)
    before = scorer.score(**request).probabilities
    moment = int(shop.session_time[session]) - 86_400
    refresh_log(open_run(run), out, as_of=moment)
    assert scorer.score(**request).probabilities.tolist() == before.tolist()
    assert scorer.reload_log() == moment == scorer.meta["as_of"]
    after = scorer.score(**request).probabilities
    assert after.tolist() != before.tolist()
    assert after.tolist() == Scorer.load(out).score(**request).probabilities.tolist()
    shutil.rmtree(out)
    shutil.copytree(made("vector")[2], out)
    with pytest.raises(UserError, match=r"another export than the one that was loaded; load it with Scorer\.load"):
        scorer.reload_log()
    assert scorer.score(**request).probabilities.tolist() == after.tolist()


def test_an_export_is_never_written_into_a_run_finished_or_not(made, tmp_path, capsys):
    _, run, _ = made("cluster_id")
    (tmp_path / "config.toml").touch()
    for out in (run, tmp_path):
        assert export(["--run", str(run), "--out", str(out)]) == 2
        assert f"{out}: a run or a shop folder; give another --out" in capsys.readouterr().err


def test_an_export_that_is_unfinished_damaged_or_of_an_unknown_form_is_refused(made, tmp_path):
    with pytest.raises(UserError, match=r"not a finished export; write one with python -m ctr\.export --run RUN --out "):
        Scorer.load(tmp_path)
    _, run, _ = made("cluster_id")
    with pytest.raises(
        UserError, match=rf"is a run, not an export of it; write one with python -m ctr\.export --run {re.escape(str(run))} --out EXPORT"
    ):
        Scorer.load(run)
    out = tmp_path / "export"
    shutil.copytree(made("cluster_id")[2], out)
    meta = json.loads((out / "meta.json").read_text())
    (out / "meta.json").write_text(json.dumps(meta | {"form": "hologram"}))
    with pytest.raises(UserError, match=r"form 'hologram'; there are cluster_id, semantic_id"):
        Scorer.load(out)
    (out / "meta.json").write_text(json.dumps(meta))
    (out / "model.pt2").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"model\.pt2: missing, or not the file that was exported"):
        Scorer.load(out)
