"""What the scripts that headway calls have in common: one line and an exit code for what goes wrong."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

DONE, BAD_INPUT, INTERNAL = 0, 2, 3


class BadInput(Exception):
    """What the user did wrong, in one line."""


class Parser(argparse.ArgumentParser):
    """Options that are wrong are bad input as any other; nothing is guessed from a prefix."""

    def __init__(self, **keywords):
        super().__init__(allow_abbrev=False, **keywords)

    def error(self, message: str):
        raise BadInput(f"{message}; hint: {self.prog} --help shows the usage")


class _Stopped(BaseException):
    """By a signal."""


# Signals that came: libraries turn what a handler raises inside them into errors of their own.
_signals: list[int] = []


def _stop(number, _frame):
    _signals.append(number)
    raise _Stopped


def _end_by_signal() -> None:
    signal.signal(_signals[0], signal.SIG_DFL)
    os.kill(os.getpid(), _signals[0])


def _drop_buffered() -> None:
    """What standard output could not take must not be tried again at exit, where it fails with a code of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(main: Callable[[], None]) -> int:
    """The exit code of `main`. A signal that ends it ends this process too, once files are put away."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        try:
            main()
            sys.stdout.flush()
        except BrokenPipeError:
            _drop_buffered()  # the reader has what it wanted
        return DONE
    except BadInput as error:
        problem, code = f"error: {error}", BAD_INPUT
    except OSError as error:
        problem, code = f"error: {reason(error)}", BAD_INPUT
        _drop_buffered()
    except MemoryError:
        problem, code = "error: not enough memory for these results", BAD_INPUT
    except _Stopped:
        _end_by_signal()
        raise
    except Exception as error:
        if _signals:
            _end_by_signal()
        kind = type(error).__name__
        problem, code = f"internal error (please report it): {kind}: {error}", INTERNAL
    with contextlib.suppress(OSError):
        print(f"headway: {problem}", file=sys.stderr)
    return code


def reason(error: OSError) -> str:
    """What the operating system says of an error, with the file it is about."""
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename else text


def read_text(path: Path, largest: int = 2**31) -> str:
    """A regular file as UTF-8 text; a pipe or a device would block or never end."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(f"{path}: not a regular file; hint: write the results to a file first")
        if status.st_size > largest:
            raise BadInput(f"{path}: {status.st_size} bytes; accepted: up to {largest}")
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: byte {error.start} is not UTF-8 text") from error
    except (OSError, ValueError) as error:
        text = reason(error) if isinstance(error, OSError) else str(error)
        raise BadInput(f"{path}: cannot read: {text.removeprefix(f'{path}: ')}") from error


def write_whole(out: Path, inputs: list[Path], write: Callable[[Path], None]) -> None:
    """Calls `write` with a file beside `out` and renames it: `out` is whole or as it was."""
    for path in inputs:
        if out.exists() and path.exists() and out.samefile(path):
            raise BadInput(f"{out}: is an input too; hint: give the output another name")
    if out.is_dir():
        raise BadInput(f"{out}: cannot write: it is a folder")
    target = out.resolve() if out.is_symlink() else out
    direct = target.exists() and not target.is_file()  # a device takes what it is given
    temporary = target if direct else target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        write(temporary)
        if not direct:
            temporary.replace(target)
    except OSError as error:
        text = error.strerror or str(error)
        raise BadInput(f"{out}: cannot write: {text}") from error
    finally:
        if not direct:
            temporary.unlink(missing_ok=True)
