"""Error handling of every command."""

from __future__ import annotations

import functools
from collections.abc import Callable

from run.errors.hooks import guard_hooks, report
from run.errors.kinds import Stopped, UserError
from run.errors.streams import guard_streams, output_error
from run.errors.system import one_line, system_error


def entry(main: Callable[..., int | None]) -> Callable[..., int]:
    """Make a command of `main(argv)`.

    A `UserError` or an error of the operating system becomes one line on stderr and exit code 2; SIGTERM gives 143, Ctrl-C 130.
    Any other exception is a bug and keeps its traceback. Standard output that is closed or full never stops the command.
    """

    @functools.wraps(main)
    def guarded(argv: list[str] | None = None) -> int:
        guard_streams()
        guard_hooks()
        try:
            code = main(argv) or 0
        except Stopped as stopped:
            return _failed(str(stopped), 143)
        except UserError as error:
            return _failed(f"error: {error}", 2)
        except KeyboardInterrupt:
            return _failed("stopped; the same command resumes from here", 130)
        except BaseException as error:  # torch.distributed.checkpoint's is not an Exception
            refused = system_error(error)
            if refused is None:
                raise
            return _failed(f"error: {one_line(refused)}", 2)
        incomplete = output_error()
        return code if incomplete is None else _failed(f"error: standard output: {one_line(incomplete)}", code or 2)

    return guarded


def _failed(line: str, code: int) -> int:
    report(line)
    return code
