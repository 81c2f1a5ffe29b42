"""The exit codes: one table that the commands return and the documentation prints.

Stable: a script may rely on them.  Knows no command and no error; which error means which code stands in `faults`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """What a command's exit code tells a script.

    >>> int(ExitCode.WAITING), ExitCode.WAITING.meaning
    (3, 'the run waits for people (or for a time that has not come)')
    """

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    OK = 0, "done; of run and resume: the run completed"
    FAILED = 1, "the run failed"
    USAGE = 2, "the command line, the input or the content of a decision or signal is wrong; nothing happened"
    WAITING = 3, "the run waits for people (or for a time that has not come)"
    STOPPED = 4, "the run stopped at its step limit, with a side effect in doubt, or is suspended; it can be resumed"
    CANCELLED = 5, "the run was cancelled"
    NOT_FOUND = 6, "there is no such run, checkpoint, barrier, signal or side effect"
    CONFLICT = 7, "somebody else has the run or decided otherwise, that person may not decide, or the run has ended; nothing was changed"
    FLOW = (
        8,
        "the flow cannot be loaded, is not valid, or the run cannot go on with it as it is; of replay: it would have decided otherwise",
    )
    STORE = 9, "the store cannot be reached or written, or its schema does not fit"
    CORRUPT = 10, "stored checkpoints are damaged"
    BUG = 70, "an error trailmark did not expect; please report it with what --debug shows"
    INTERRUPTED = 130, "Ctrl-C, or No to a question; a run that was under way is suspended and can be resumed"
    TERMINATED = 143, "SIGTERM; a run that was under way is suspended and can be resumed"


OF_STATUS = {
    "completed": ExitCode.OK,
    "failed": ExitCode.FAILED,
    "cancelled": ExitCode.CANCELLED,
    "waiting": ExitCode.WAITING,
}
"""What `run` and `resume` return for a run's status; any other status is STOPPED."""


def exit_code_of(status: str) -> ExitCode:
    """The exit code of a run that ended or stopped.

    >>> exit_code_of("limit_reached").name
    'STOPPED'
    """
    return OF_STATUS.get(status, ExitCode.STOPPED)
