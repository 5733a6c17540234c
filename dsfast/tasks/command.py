"""One attempt of a shell task: its script file, its process, its end."""

from __future__ import annotations

import errno
import os

from dsfast.tasks.attempt import NOT_EXECUTABLE, NOT_FOUND, Attempt
from dsfast.tasks.base import StartFailed
from dsfast.tasks.environment import mark
from dsfast.tasks.process import start_process
from dsfast.tasks.shell import interpreter

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"  # where programs are looked for when the environment has no PATH
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class CommandAttempt(Attempt):
    """See the module."""

    __slots__ = ()

    def start(self) -> None:
        """Start it. Raises StartFailed."""
        try:
            output = self.log.open()
        except OSError as error:
            raise _unwritable(error) from error
        try:
            self._start(output)
        finally:
            os.close(output)

    def _start(self, output: int) -> None:
        try:
            argv = self._argv()
        except OSError as error:
            raise _unwritable(error) from error
        try:
            self._run(argv, output)
        except (OSError, ValueError) as error:
            self.fail(*explain(error, argv[0], self.job.workdir))

    def _argv(self) -> list[str]:
        config, script = self.job.config, self.job.script
        if config.command:
            return list(config.command)
        with open(os.open(script, _FLAGS, 0o600), "wb") as file:  # buffered, because it insists: no script is cut short
            file.write(config.script.encode(errors="surrogateescape"))
            file.truncate()  # it may have been another attempt's, see Job
        return [*interpreter(config.shell), script]

    def _run(self, argv: list[str], output: int) -> None:
        job = self.job
        argv[0] = find_program(argv[0], job.env.get("PATH", DEFAULT_PATH))
        self.process = start_process(argv, job.env, job.workdir, output, self.ended, mark(job.env))
        self.process.watch(self.log)


def _unwritable(error: OSError) -> StartFailed:
    return StartFailed(f"this worker cannot write the files of a task: {error}")


def find_program(name: str, path: str) -> str:
    """The program's file, looked for as shells do. Raises FileNotFoundError.

    Nothing is remembered, because a program may be installed or moved at any time; and it is one system call for each
    directory, because every attempt comes by here.
    """
    if "/" in name:
        return name
    for directory in path.split(":"):
        found = f"{directory or '.'}/{name}"
        if os.access(found, os.X_OK) and os.path.isfile(found):
            return found
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def explain(error: OSError | ValueError, program: str, workdir: str) -> tuple[int, str]:
    """The exit code and the sentence for a command that could not be started."""
    if isinstance(error, ValueError):
        return NOT_EXECUTABLE, str(error)
    if not os.path.isdir(workdir):
        return NOT_EXECUTABLE, f"the working directory {workdir} does not exist on this worker"
    if not os.access(workdir, os.X_OK):
        return NOT_EXECUTABLE, f"the working directory {workdir} may not be entered by this worker's user"
    if error.errno == errno.ENOENT:
        return NOT_FOUND, _missing(program, workdir)
    if error.errno == errno.EACCES:
        return NOT_EXECUTABLE, f"{program} may not be executed: it has no execute permission for this worker's user"
    if error.errno == errno.ENOEXEC:
        return NOT_EXECUTABLE, f"{program} is neither a program nor a script whose first line begins with #!"
    if error.errno == errno.E2BIG:
        return NOT_EXECUTABLE, f"the arguments and environment of {program} are too large for this system"
    return NOT_EXECUTABLE, f"{program} cannot be started: {os.strerror(error.errno or 0)}"


def _missing(program: str, workdir: str) -> str:
    if "/" not in program:
        return f"there is no program {program!r} in the task's PATH on this worker"
    if os.path.exists(os.path.join(workdir, program)):
        return f"{program} cannot be started: the interpreter in its first line (#!) does not exist on this worker"
    return f"there is no program {program} on this worker"
