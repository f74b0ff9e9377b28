"""The end of an execution, as the executor reports it to the scheduler."""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass
from enum import Enum
from typing import Any, Dict, Optional, Tuple

from jobcloud.wire import RESULT_BYTES, RESULT_LEVELS, is_flat

MESSAGE_CHARS = 4000
_TOO_LARGE = f"the result was dropped: more than {RESULT_BYTES} bytes of JSON"
_EXECUTOR_MODULES = ("jobcloud.", "importlib", "_frozen_importlib")


class State(str, Enum):
    """The terminal task states that the executor reports."""

    FINISHED = "TASK_FINISHED"
    FAILED = "TASK_FAILED"
    KILLED = "TASK_KILLED"
    ERROR = "TASK_ERROR"


class Cause(str, Enum):
    """The reason why an execution did not finish, for programs. The message of an Outcome is for people."""

    EXCEPTION = "exception"  # the job raised an exception
    EXIT_CODE = "exit_code"  # the process of the script or shard, or sys.exit() in a job, gave a code other than 0
    SIGNAL = "signal"  # a signal ended the process of the script or shard, and no kill or time limit was the reason
    IMPORT = "import"  # the job's class, bean or plug-in cannot be loaded or is of a wrong type
    CONTEXT = "context"  # applicationContext cannot be built or lacks the bean
    LISTENER = "listener"  # a listener raised an exception
    COMMAND = "command"  # scriptCommandLine, or the app's own worker, cannot be started
    PACKAGE = "package"  # the app package is missing, altered or unsafe
    PAYLOAD = "payload"  # the executor does not understand the data of the task or of the executor
    SECRETS = "secrets"  # a secret of the job cannot be had
    TIMEOUT = "timeout"  # the execution took longer than timeoutSeconds
    OUT_OF_MEMORY = "out_of_memory"  # MemoryError, or the kernel killed the process because memory ran out
    WORKER_LOST = "worker_lost"  # the shared worker died, or the agent had no room for a process or thread
    KILLED = "killed"  # the scheduler killed the task
    EXECUTOR_SHUTDOWN = "executor_shutdown"  # the executor ended while the task was alive
    EXECUTOR_ERROR = "executor_error"  # an error in the executor itself


@dataclass(frozen=True)
class Outcome:
    """The end of one execution. `result` is a small JSON value or None."""

    state: State
    cause: Optional[Cause] = None
    message: str = ""
    exit_code: Optional[int] = None
    result: Any = None

    def data(self) -> bytes:
        """The machine-readable part of a terminal status update, as JSON."""
        fields: Dict[str, Any] = {"schema": 1, "cause": self.cause.value if self.cause else None}
        if self.exit_code is not None:
            fields["exitCode"] = self.exit_code
        if self.result is not None:
            fields["result"] = self.result
        return json.dumps(fields, separators=(",", ":")).encode()


def failed(cause: Cause, message: str, exit_code: Optional[int] = None) -> Outcome:
    return Outcome(State.FAILED, cause, cut(message), exit_code)


def killed(cause: Cause = Cause.KILLED, message: str = "", exit_code: Optional[int] = None) -> Outcome:
    return Outcome(State.KILLED, cause, cut(message), exit_code)


def small(result: Any) -> Tuple[Any, str]:
    """Check the result of a job. Returns (the result in JSON types or None, the reason why it was dropped or "")."""
    if result is None:
        return None, ""
    if isinstance(result, (str, bytes)) and len(result) > RESULT_BYTES:
        return None, _TOO_LARGE
    try:
        pieces, size = [], 0
        for piece in json.JSONEncoder(allow_nan=False).iterencode(result):
            pieces.append(piece)
            size += len(piece)
            if size > RESULT_BYTES:
                return None, _TOO_LARGE
        kept = json.loads("".join(pieces))
        json.dumps(kept, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return None, "the result was dropped: it has text that is not Unicode, such as the name of a file"
    except Exception as error:
        return None, f"the result was dropped: not JSON: {cut(str(error), 200)}"
    if not is_flat(kept):
        return None, f"the result was dropped: more than {RESULT_LEVELS} levels of JSON"
    return kept, ""


def cut(text: str, limit: int = MESSAGE_CHARS) -> str:
    """`text` in at most `limit` characters. The middle of a long text is left out: beginning and end say most."""
    if len(text) <= limit:
        return text
    gap = f"\n… {len(text) - limit} characters left out …\n"
    head = limit // 2
    return text[:head] + gap + text[len(text) - (limit - head - len(gap)) :]


def describe(error: BaseException) -> str:
    """The type and text of the exception, then its traceback from the first frame outside the executor."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(_EXECUTOR_MODULES):
        trace = trace.tb_next
    head = "".join(traceback.format_exception_only(type(error), error)).strip()
    if trace is None:
        return cut(head)
    return cut(
        cut(head, MESSAGE_CHARS // 4) + "\n\n" + "".join(traceback.format_exception(type(error), error, trace)).strip()
    )
