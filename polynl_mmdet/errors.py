"""The error class for input that the user can correct, and how command-line tools show it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input: a config, annotation, image, prediction file, checkpoint or argument.

    The message is one line for the user: where it was found (file, line or key), what was found
    there and what is accepted.

    Args:
        where (str): File, ``file:line``, config key or argument at fault.
        found (str): What was found there. Defaults to '': ``where`` is the whole message.
        accepted (str): What is accepted instead, or how to correct it. Defaults to ''.
    """

    def __init__(self, where: str, found: str = '', accepted: str = '') -> None:
        self.where = str(where)
        self.found = found
        self.accepted = accepted
        message = f'{where}: {found}' if found else str(where)
        super().__init__(message + (f'; {accepted}' if accepted else ''))

    def __reduce__(self):
        # ValueError would be rebuilt from the finished message, which does not fit __init__
        # (data-loader workers send their errors to the parent as pickles).
        return type(self), (self.where, self.found, self.accepted)


def in_one_line(message: object, most: int = 300) -> str:
    """Shorten a message of other code, which may quote a file, to one line.

    Args:
        message (object): An exception or text.
        most (int): Characters to keep; what is longer ends in '...'. Defaults to 300.

    Returns:
        str: The text without line ends.
    """
    line = ' '.join(str(message).split())
    return line if len(line) <= most else f'{line[: most - 3]}...'


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Let an InputError end a command-line tool in one line and exit status 2."""
    try:
        yield
    except InputError as error:
        # One from a data worker comes as the whole traceback, its own message last.
        *above, text = str(error).rstrip().split('\n')
        if above:
            text = text.partition('Error: ')[2] or text
        sys.stdout.flush()  # Or what waits there would follow the error where both are one pipe.
        print(f'error: {text}', file=sys.stderr)
        raise SystemExit(2) from None
