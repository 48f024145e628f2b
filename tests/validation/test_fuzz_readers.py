"""Damaged files: every reader takes them or says what is wrong, in bounded memory.

``POLYNL_FUZZ_EXAMPLES`` sets how many files each reader gets; ``python validation/fuzz.py`` gives
it thousands.
"""

from __future__ import annotations

import os

import pytest
from fuzz_readers import READERS, Reader

from validation.fuzz import Found, fuzz

EXAMPLES = int(os.environ.get('POLYNL_FUZZ_EXAMPLES', '150'))


@pytest.mark.parametrize('name', READERS)
def test_only_the_documented_error_leaves_a_reader(name):
    found = fuzz(READERS[name], EXAMPLES)
    assert found.undocumented == {}
    assert found.cases >= EXAMPLES
    assert found.errors
    assert found.memory < 1


@pytest.mark.parametrize('name', sorted(set(READERS) - {'converter input'}))
def test_the_files_that_are_damaged_are_good_ones(name, tmp_path):
    # The small state dict lacks a backbone.
    for data in READERS[name].files:
        READERS[name].read(data, tmp_path)


@pytest.mark.parametrize(
    ('problem', 'read'),
    [
        ('ZeroDivisionError in test_fuzz_readers.py:<lambda>', lambda data, folder: 1 / 0),
        ('more memory than the size of the file bounds', lambda data, folder: bytes(1 << 23)),
    ],
)
def test_what_a_reader_must_not_do_is_found(problem, read):
    sound = READERS['prediction files']
    seen = []

    def reads_once(data, folder):
        seen.append(data)
        return read(data, folder) if len(seen) > 1 else None

    found: Found = fuzz(Reader(sound.files, reads_once, sound.damaged), 20)
    assert list(found.undocumented) == [problem]
    assert found.undocumented[problem] == min(seen[1:], key=len)
