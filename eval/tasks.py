"""A command as a list of tasks, each a cached stage; the list is processed in waves, and the tasks of a wave run in parallel.

`eval.stages` lists the tasks of a comparison. Another command lists its own and calls `run_tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run.errors import UserError
from run.folder import Stage


@dataclass(frozen=True, kw_only=True)
class Task:
    """One cached stage of a command: its title, its key (in `stage`) and what makes it."""

    kind: str  # neighbours of one kind run in parallel and are counted together
    title: str  # printed as it starts, such as "ctr courier vector seed 0"; "" prints nothing
    stage: Stage | None  # where the result is stored, named by all it depends on; None: `run` is always called and resumes its own work
    run: Callable[..., object]  # called with `arguments` unless the stage is done; worker processes import it by name
    arguments: tuple[Any, ...]
    needs: tuple[Stage, ...] = ()  # stages that it reads
    alone: bool = False  # runs in this process, one at a time, and may use all cores

    @property
    def done(self) -> bool:
        return self.stage is not None and self.stage.done


def waves(tasks: Sequence[Task]) -> list[list[Task]]:
    """The tasks in order, cut where the kind changes or a task needs one of the wave before it.

    Raises:
        ValueError: a task needs a stage that is neither done nor made by an earlier task.
    """
    found: list[list[Task]] = []
    wave_of: dict[Path, int] = {}  # a stage's folder -> the wave that makes it
    for task in tasks:
        needed = [stage for stage in task.needs if stage.folder in wave_of or not stage.done]
        missing = [stage.folder for stage in needed if stage.folder not in wave_of]
        if missing:
            raise ValueError(f"{task.title} needs {missing[0]}, which no earlier task makes")
        last = len(found) - 1
        if not found or found[last][0].kind != task.kind or any(wave_of[stage.folder] == last for stage in needed):
            found.append([])
        found[-1].append(task)
        if task.stage is not None:
            wave_of[task.stage.folder] = len(found) - 1
    return found


def run_tasks(tasks: Sequence[Task], *, jobs: int) -> None:
    """Make every stage that is not done, at most `jobs` at once; the first error stops the rest.

    Raises:
        UserError: a stage was made under another name, because a worker found other code or data than this process.
    """
    from run.parallel import Workers

    found = waves(tasks)
    most = max((sum(not task.done for task in wave) for wave in found if not any(task.alone for task in wave)), default=0)
    with Workers(min(jobs, most)) as workers:
        for wave in found:
            open_tasks = [task for task in wave if not task.done]
            titles = [f"{task.title} ({number} of {len(open_tasks)})" * bool(task.title) for number, task in enumerate(open_tasks, 1)]
            calls = [(task.run, task.arguments) for task in open_tasks]
            workers.run(_call, calls, titles=titles, here=any(task.alone for task in wave))
            for task in open_tasks:
                if task.stage is not None and not task.stage.done:
                    name = task.title or task.stage.folder.name
                    raise UserError(f"{name}: code or data changed while this command ran; run it again to make what is missing")


def _call(run: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """The work of a worker process; the result is on disk, so nothing is returned."""
    run(*arguments)
