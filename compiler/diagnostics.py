"""Errors meant for users: one line that says what was got, what is allowed, and what to do next."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from stablenorm.compiler.streams import drop_unwritable_output, open_streams


class StablenormError(ValueError):
    """A mistake in what stablenorm was given. The message is complete: it needs no traceback to be understood.

    The command-line tools print it as ``error: <message>`` and exit with code 2.
    """


def first_line(error: BaseException) -> str:
    """What an error says, in one line. MLIR puts a heading first and prints whole modules after the message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines = lines[1:]
    text = lines[0].removeprefix("error: ") if lines else type(error).__name__
    return text if len(text) <= 400 else text[:397] + "..."


def exit_code(command: Callable[[], int]) -> int:
    """Runs a command for the shell: its own exit code; 2 after one line on standard error that says what was wrong."""
    open_streams()
    try:
        code = command()
        sys.stdout.flush()
    except StablenormError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        drop_unwritable_output()
        return 141
    except OSError as error:  # no permission, no space
        drop_unwritable_output()
        print(f"error: {error.filename or 'standard output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return code


class ArgumentParser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments, without the usage above it. Subparsers are of this class."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")
