"""A list of tasks runs in waves: in order, neighbours of a kind in parallel, nothing before what it needs."""

from dataclasses import replace

import pytest

from eval.tasks import Task, run_tasks, waves
from run.errors import UserError
from run.folder import Stage


def make(log, stage):
    """What the tasks of these tests run: it records that it did."""
    log.append(stage.folder.name.rsplit("-", 1)[0])
    stage.finish({})


@pytest.fixture
def task(tmp_path):
    log = []

    def build(name, *, kind="a", needs=(), **more):
        stage = Stage(tmp_path, name, {"name": name})
        return Task(kind=kind, title=f"make {name}", stage=stage, run=make, arguments=(log, stage), needs=needs, **more)

    build.log = log
    return build


def titles(tasks):
    return [[each.title.removeprefix("make ") for each in wave] for wave in waves(tasks)]


def test_a_wave_ends_where_the_kind_changes_or_a_task_needs_one_of_it(task):
    first, second = task("first"), task("second")
    third, fourth = task("third", needs=(first.stage,)), task("fourth", needs=(second.stage,))
    other = task("other", kind="b")
    assert titles([first, second, third, fourth, other]) == [["first", "second"], ["third", "fourth"], ["other"]]


def test_a_need_that_no_earlier_task_makes_is_an_error_unless_it_is_done(task):
    late = task("late")
    early = task("early", needs=(late.stage,))
    with pytest.raises(ValueError, match=r"make early needs .*late-"):
        waves([early, late])
    late.stage.finish({})
    assert titles([early]) == [["early"]]


def test_only_unfinished_tasks_are_run_and_counted(task, capsys):
    tasks = [task("one"), task("two"), task("three"), task("four", kind="b")]
    tasks[1].stage.finish({})
    run_tasks(tasks, jobs=1)
    assert task.log == ["one", "three", "four"]
    assert capsys.readouterr().err.splitlines() == ["make one (1 of 2)", "make three (2 of 2)", "make four (1 of 1)"]
    run_tasks(tasks, jobs=1)
    assert task.log == ["one", "three", "four"]
    assert capsys.readouterr().err == ""


def test_a_task_without_a_stage_runs_every_time_and_one_without_a_title_silently(task, capsys):
    calls = []
    always = Task(kind="a", title="", stage=None, run=calls.append, arguments=(1,))
    for _ in range(2):
        run_tasks([always], jobs=1)
    assert calls == [1, 1]
    assert capsys.readouterr().err == ""


def test_a_wave_of_tasks_that_run_alone_stays_in_this_process(task):
    run_tasks([task("one", alone=True), task("two", alone=True)], jobs=2)
    assert task.log == ["one", "two"]


def test_a_stage_that_a_worker_names_differently_is_noticed_at_once(task):
    made, other = task("made"), task("other")
    with pytest.raises(UserError, match="make made: code or data changed while this command ran"):
        run_tasks([replace(made, arguments=(task.log, other.stage)), task("never", kind="b")], jobs=1)
    assert task.log == ["other"]


def test_the_first_error_stops_the_waves_after_it(task):
    def fail():
        raise RuntimeError("broken")

    broken = Task(kind="a", title="", stage=None, run=fail, arguments=())
    with pytest.raises(RuntimeError, match="broken"):
        run_tasks([broken, task("never", kind="b")], jobs=1)
    assert task.log == []
