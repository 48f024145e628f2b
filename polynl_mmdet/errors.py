"""The error of command-line tools, and how they show errors of input."""

from __future__ import annotations

import sys
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

_PACKAGE = str(Path(__file__).parent)


class InputError(ValueError):
    """Input of a command-line tool that the user can correct. Library code raises ValueError."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End a tool at an InputError, or a ValueError of this package, in one line and with status 2.

    Other errors keep their traceback. mmengine imports pkg_resources again for each package that a
    ``_base_`` names; its warning at the first time is enough.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
        try:
            yield
        except Exception as error:
            message = _own_message(error)
            if message is None:
                raise
            sys.stdout.flush()
            print(f'error: {message}', file=sys.stderr)
            raise SystemExit(2) from None


def _own_message(error: BaseException | None) -> str | None:
    """Return the message of this package's ValueError that led to an error, None if there is none.

    mmengine's registries raise an error of a constructor again, with the class before the message.
    """
    while error is not None:
        if isinstance(error, ValueError):
            text = str(error)
            if 'Original Traceback' in text:  # From a data worker, as text.
                if text.rpartition('  File "')[2].startswith(_PACKAGE):
                    return text.strip().split('\n')[-1].partition('Error: ')[2]
            elif isinstance(error, InputError) or (
                traceback.extract_tb(error.__traceback__)[-1].filename.startswith(_PACKAGE)
            ):
                return ' '.join(text.split())
        error = error.__cause__ or error.__context__
    return None
