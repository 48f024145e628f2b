"""What importing the package needs, the start-up file and the console command."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from polynl import TOOLS

ROOT = Path(__file__).parent.parent


def python(code, *hidden, cwd=None):
    """Run code in a new process that cannot import the hidden packages."""
    start = f'import sys; sys.modules.update(dict.fromkeys({hidden!r}))\n'
    return subprocess.run(
        [sys.executable, '-W', 'ignore::UserWarning:mmengine', '-c', start + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def test_ops_need_torch_alone():
    hidden = ('mmengine', 'mmcv', 'mmdet', 'cv2', 'scipy', 'pycocotools', 'matplotlib')
    done = python(
        """
        import torch
        from polynl_mmdet.ops import poly_nl
        w, one = torch.eye(4), torch.ones(1)
        x = torch.ones(1, 4, 3)
        torch.testing.assert_close(poly_nl(x, w, w, w, one, one), 2 * x)
        """,
        *hidden,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_a_setuptools_that_mmengine_cannot_use_is_reported():
    """Not for the onedl fork, which does not import pkg_resources."""
    utils = Path(find_spec('mmengine').origin).with_name('utils') / 'package_utils.py'
    done = python('import polynl_mmdet', 'pkg_resources')
    assert done.returncode == 0, done.stderr
    expected = 'pkg_resources' in utils.read_text()
    assert done.stderr.count("pip install 'setuptools<81'") == expected
    assert 'only its layers' not in done.stderr


# As when Python starts, where the package is installed.
START = f"""
import site, tempfile
sys.meta_path[:] = [f for f in sys.meta_path if 'polynl_mmdet_lookup' not in repr(f)]
sys.modules.pop('polynl_mmdet_lookup', None)
sys.path.insert(0, {str(ROOT)!r})
folder = tempfile.mkdtemp()
open(folder + '/polynl_mmdet_lookup.pth', 'w').write('import polynl_mmdet_lookup')
modules = set(sys.modules)
site.addsitedir(folder)
assert type(sys.meta_path[0]).__name__ == 'ConfigLookup'
"""


def test_the_start_up_file_imports_nothing_else_and_disturbs_no_import():
    code = """
        import types
        print(set(sys.modules) - modules)
        for scopes in (None, {'mmdet': ''}):
            if scopes:
                sys.modules['mmengine.config.utils'] = types.SimpleNamespace(MODULE2PACKAGE=scopes)
            try:
                import no_such_module
            except ModuleNotFoundError as error:
                print(error)
        print(scopes)
        import xmlrpc.client
    """
    done = python(START + textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "{'polynl_mmdet_lookup'}",
        "No module named 'no_such_module'",
        "No module named 'no_such_module'",
        "{'mmdet': '', 'polynl_mmdet': 'polynl_mmdet.version'}",
    ]


def test_the_command_lists_its_tools_and_suggests_the_nearest():
    if not (ROOT / 'polynl_mmdet' / '.mim').exists():
        pytest.skip('polynl_mmdet is not installed: nothing links its tools')
    assert all((ROOT / 'tools' / file).is_file() for file in TOOLS.values())
    for words, status, expected in (
        ([], 0, [f'  {name} ' for name in TOOLS]),
        (['eval-wider'], 1, ['did you mean eval-wider-face?']),
        (['eval-wider-face', '--help'], 0, ['usage: polynl eval-wider-face']),
    ):
        command = [sys.executable, ROOT / 'polynl.py', *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status
        assert all(text in done.stdout + done.stderr for text in expected)


def test_every_config_has_an_entry_in_the_index():
    listed = {}
    for name in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        metafile = yaml.safe_load((ROOT / name).read_text())
        collections = {collection['Name'] for collection in metafile['Collections']}
        for model in metafile['Models']:
            assert model['Name'] == Path(model['Config']).stem
            assert model['In Collection'] in collections
            listed[model['Config']] = model
    configs = (path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
    assert set(listed) == {path.relative_to(ROOT).as_posix() for path in configs}
