"""Damaged files: every reader takes them or says what is wrong, in bounded memory.

``POLYNL_FUZZ_EXAMPLES`` sets how many files each reader gets; ``python validation/fuzz.py`` gives
it thousands and prints what they said.
"""

from __future__ import annotations

import os

import pytest

from validation.fuzz import fuzz, template
from validation.fuzz_readers import READERS

EXAMPLES = int(os.environ.get('POLYNL_FUZZ_EXAMPLES', '150'))


@pytest.mark.parametrize('name', READERS)
def test_only_the_documented_error_leaves_a_reader(name):
    found = fuzz(READERS[name], EXAMPLES)
    assert found.undocumented == {}
    assert found.cases >= EXAMPLES
    assert found.errors
    assert found.peak < 1


@pytest.mark.parametrize('name', sorted(set(READERS) - {'ground truth .mat', 'converter input'}))
def test_the_files_that_are_damaged_are_good_ones(name, tmp_path):
    # A .mat file is given under two names and fits one; the small state dict lacks a backbone.
    for index, data in enumerate(READERS[name].valid()):
        folder = tmp_path / str(index)
        folder.mkdir()
        READERS[name].read(data, folder)


def test_messages_are_counted_without_names_and_numbers():
    assert template('/a b/c.txt:12: "x" in "1 x"; accepted: y') == template(
        '/a b/c.txt:7: "7" in ""; accepted: y'
    )
