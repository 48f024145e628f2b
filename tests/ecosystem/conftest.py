"""A wheel of this package, installed where its source folder is out of sight."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from forks import without_notice

ROOT = Path(__file__).parents[2]
PARTS = ('polynl_mmdet', 'configs', 'tools', 'setup.py', 'pyproject.toml', 'MANIFEST.in')
FILES = ('README.md', 'LICENSE', 'model-index.yml', 'polynl_mmdet_lookup.pth')


def outside():
    """dict: this environment, from which the source folder cannot be seen."""
    return {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}


class Installed:
    """An environment with the wheel.

    Attributes:
        python (Path): Its interpreter.
        package (Path): The installed package's folder.
        wheel (Path): The wheel.
    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.wheel = wheel
        self.python = folder / 'bin' / 'python'
        self.package = Path(self('import polynl_mmdet as p; print(p.__path__[0])').stdout.strip())

    def run(self, *args, cwd=None, check=True, timeout=600):
        """Run the interpreter, without this project on its path; gives the CompletedProcess."""
        env = {**outside(), 'PYTHONWARNINGS': 'ignore', 'OMP_NUM_THREADS': '1'}
        done = subprocess.run(
            [str(self.python), *map(str, args)],
            cwd=cwd or self.python.parent,
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return without_notice(done)

    def __call__(self, code, cwd=None):
        return self.run('-c', code, cwd=cwd)


@pytest.fixture(scope='session')
def installed(tmp_path_factory):
    """Installed: the wheel in a virtual environment that borrows everything else from this one."""
    source = tmp_path_factory.mktemp('source')
    # pip builds in the source folder: a copy keeps the real one clean.
    for name in (*PARTS, *FILES):
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns('__pycache__', '.mim')
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, source / name)
    stale = source / 'build/lib/polynl_mmdet/stale.py'
    stale.parent.mkdir(parents=True)
    stale.write_text('"""Of a build long ago."""\n')
    wheels = tmp_path_factory.mktemp('wheels')
    command = [sys.executable, '-m', 'pip', 'wheel', str(source), '--no-deps', '-q', '-w', wheels]
    done = subprocess.run(
        [*map(str, command), '--no-build-isolation', '--disable-pip-version-check'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.glob('*.whl')

    folder = tmp_path_factory.mktemp('environment')
    venv.create(folder, with_pip=False)
    version = f'python{sys.version_info[0]}.{sys.version_info[1]}'
    site_packages = folder / 'lib' / version / 'site-packages'
    pip = [sys.executable, '-m', 'pip', '--python', str(folder / 'bin/python')]
    options = ['--no-deps', '--no-index', '-q', '--disable-pip-version-check']
    done = subprocess.run(
        [*pip, 'install', *options, str(wheel)],
        capture_output=True,
        text=True,
        check=False,
        env=outside(),
    )
    assert done.returncode == 0, done.stderr
    # A folder named in a .pth file is searched, but its own .pth files, among them those of an
    # editable install of this project, are not.
    borrowed = {sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}
    (site_packages / 'borrowed.pth').write_text('\n'.join(sorted(borrowed)) + '\n')
    # But for setuptools's: mmengine imports distutils, which Python 3.12 and newer have from there.
    shutil.copy(Path(sysconfig.get_path('purelib')) / 'distutils-precedence.pth', site_packages)
    environment = Installed(folder, wheel)
    assert environment.package.parent == site_packages
    return environment
