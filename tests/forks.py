"""What the onedl forks do otherwise than the official packages."""

from __future__ import annotations

import subprocess

# Their mmdet prints this while it is imported.
_NOTICE = 'Could not import OneDL. Skipping OneDL datasets.\n'


def without_notice(done: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    """CompletedProcess: the same, without what a fork prints of itself."""
    done.stdout = done.stdout.replace(_NOTICE, '')
    return done
