"""What importing the package needs, says and registers."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HIDE = """
    import importlib.abc, sys
    class Hide(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition('.')[0] in HIDDEN:
                raise ModuleNotFoundError(f'No module named {name!r}', name=name)
    import importlib.util
    found = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *a: None if name in HIDDEN else found(name, *a)
    sys.meta_path.insert(0, Hide())
"""


def python(code, *hidden):
    """Run code in a fresh process that cannot import the hidden packages."""
    source = f'HIDDEN = {hidden!r}\n' + textwrap.dedent(HIDE if hidden else '')
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', source + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_ops_need_torch_alone():
    done = python(
        """
        import sys, torch
        from polynl_mmdet.ops import poly_nl, poly_nl_reference
        w = torch.eye(4)
        x = torch.ones(1, 4, 3)
        one = torch.ones(1)
        torch.testing.assert_close(poly_nl(x, w, w, w, one, one), 2 * x)
        assert not any(name.partition('.')[0] in HIDDEN for name in sys.modules)
        print('fine')
        """,
        'mmengine',
        'mmcv',
        'mmdet',
        'cv2',
        'scipy',
        'pycocotools',
        'matplotlib',
    )
    assert done.stdout.strip() == 'fine', done.stderr


def test_layers_need_no_mmdet():
    done = python(
        """
        import sys, polynl_mmdet
        from mmengine.registry import MODELS
        assert MODELS.get('PolyNL').__module__ == 'polynl_mmdet.layers.poly_nl'
        assert 'mmdet' not in sys.modules
        print('fine')
        """,
        'mmdet',
    )
    assert done.stdout.strip() == 'fine', done.stderr


@pytest.mark.parametrize('name', ['mmcv', 'mmengine'])
def test_a_missing_package_is_named_with_the_cure(name):
    done = python('import polynl_mmdet', name)
    last = done.stderr.strip().splitlines()[-1]
    assert f'polynl_mmdet needs {name}' in last
    assert 'pip install' in last


@pytest.mark.parametrize(
    ('name', 'version'), [('mmdet', '2.28.0'), ('mmcv', '1.7.1'), ('mmengine', '0.1.0')]
)
def test_an_unsupported_version_is_named_with_the_cure(name, version):
    done = python(f'import {name}; {name}.__version__ = {version!r}; import polynl_mmdet')
    last = done.stderr.strip().splitlines()[-1]
    assert f'{name} <' in last
    assert version in last
    assert 'pip install' in last


def test_bases_of_the_installed_package_resolve_from_any_directory(tmp_path):
    """In a fresh process that has not imported the package, as mmdet's own tools start."""
    config = tmp_path / 'mine.py'
    config.write_text(
        "_base_ = 'polynl_mmdet::mask_rcnn/mask-rcnn_r50-polynl-site-c4_fpn_1x_coco.py'\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            "from mmengine.config import Config; cfg = Config.fromfile('mine.py'); "
            'print(cfg.model.backbone.type)',
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip().endswith('SiteResNet'), done.stderr


def test_the_lookup_waits_without_importing_anything():
    done = python(
        """
        import sys
        from pathlib import Path
        scope = {}
        exec(Path(LOOKUP).read_text(), scope)
        scope['teach_mmengine_when_imported']()
        assert not any(name.startswith(('mmengine', 'torch', 'polynl')) for name in sys.modules)
        from mmengine.config.utils import MODULE2PACKAGE
        print(MODULE2PACKAGE['polynl_mmdet'], [type(f).__name__ for f in sys.meta_path])
        """.replace('LOOKUP', repr(str(Path(__file__).parent.parent / 'polynl_mmdet/_lookup.py')))
    )
    assert done.stdout.startswith('polynl_mmdet.version'), done.stderr
