"""What importing the package needs, registers and changes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HIDE = """
    import sys
    for name in HIDDEN:
        sys.modules[name] = None  # Importing it raises ModuleNotFoundError.
"""


def python(code, *hidden):
    """Run code in a fresh process that cannot import the hidden packages."""
    source = f'HIDDEN = {hidden!r}\n' + textwrap.dedent(HIDE if hidden else '')
    return subprocess.run(
        [sys.executable, '-c', source + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )


def warnings_of(done):
    """Lines of our own warnings."""
    return [line for line in done.stderr.splitlines() if 'polynl_mmdet is without' in line]


def test_ops_need_torch_alone():
    done = python(
        """
        import sys, torch
        from polynl_mmdet.ops import poly_nl, poly_nl_reference
        w = torch.eye(4)
        x = torch.ones(1, 4, 3)
        one = torch.ones(1)
        torch.testing.assert_close(poly_nl(x, w, w, w, one, one), 2 * x)
        loaded = [name for name, module in sys.modules.items() if module is not None]
        assert not any(name.partition('.')[0] in HIDDEN for name in loaded)
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
    assert not done.stderr


@pytest.mark.parametrize(
    ('hidden', 'parts', 'registered'),
    [
        (
            'mmdet',
            'models, datasets, evaluation, visualization',
            ['PolyNL', 'AtomicCheckpointHook'],
        ),
        ('mmcv', 'layers, models, datasets, evaluation, visualization', ['AtomicCheckpointHook']),
        ('mmengine', 'engine, layers, models, datasets, evaluation, visualization', []),
    ],
)
def test_without_a_package_the_rest_registers_and_one_line_says_so(hidden, parts, registered):
    done = python(
        """
        import polynl_mmdet
        from polynl_mmdet.ops import poly_nl
        if 'mmengine' not in HIDDEN:
            from mmengine.registry import HOOKS, MODELS
            print(*MODELS.module_dict, *HOOKS.module_dict)
        """,
        hidden,
    )
    assert done.returncode == 0, done.stderr
    assert {'PolyNL', 'AtomicCheckpointHook'} & set(done.stdout.split()) == set(registered)
    (line,) = warnings_of(done)
    assert f'is without {parts} (' in line
    assert hidden in line
    assert 'pip install' in line


@pytest.mark.skipif(
    'MMCV==' not in Path(find_spec('mmdet').origin).read_text(), reason='a fork that refuses none'
)
def test_a_version_that_mmdet_refuses_is_named():
    done = python('import mmcv; mmcv.__version__ = "1.0.0"; import polynl_mmdet')
    assert done.returncode == 0, done.stderr
    (line,) = warnings_of(done)
    assert 'is without models, datasets, evaluation, visualization (MMCV==1.0.0 is used' in line


def test_it_registers_before_mmdet_is_imported():
    """After mmdet: see the next test."""
    done = python(
        """
        import polynl_mmdet
        from mmdet.registry import DATASETS, METRICS, MODELS, VISUALIZERS
        print(all((MODELS.get('PolyNL'), MODELS.get('RetinaFace'), METRICS.get('WIDERFaceMetric'),
                   DATASETS.get('RetinaFaceDataset'), VISUALIZERS.get('FaceVisualizer'))))
        """
    )
    assert done.stdout.strip().endswith('True'), done.stderr
    assert not warnings_of(done)


LOOKUP = ROOT / 'polynl_mmdet_lookup.pth'
# As at the start of Python, where the file is installed.
START = f"""
import shutil, site, sys, tempfile
sys.meta_path[:] = [f for f in sys.meta_path if getattr(f, '__name__', '') != 'polynl_mmdet_lookup']
folder = tempfile.mkdtemp()
shutil.copy({str(LOOKUP)!r}, folder)
modules = set(sys.modules)
site.addsitedir(folder)
new = set(sys.modules) - modules
assert sys.meta_path[0].__name__ == 'polynl_mmdet_lookup'
"""


@pytest.mark.parametrize('begin', [START, 'import sys, polynl_mmdet'], ids=['start-up', 'import'])
def test_bases_resolve_from_any_directory(tmp_path, monkeypatch, begin):
    if not (ROOT / 'polynl_mmdet' / '.mim').exists():
        pytest.skip('polynl_mmdet is not installed: nothing links its configs')
    config = tmp_path / 'mine.py'
    config.write_text(
        "_base_ = 'polynl_mmdet::mask_rcnn/mask-rcnn_r50-polynl-site-c4_fpn_1x_coco.py'\n"
    )
    monkeypatch.chdir(tmp_path)
    done = python(
        begin
        + textwrap.dedent(
            """
            from mmengine.config import Config
            print(Config.fromfile('mine.py').model.backbone.type)
            print([f for f in sys.meta_path if getattr(f, '__name__', '') == 'polynl_mmdet_lookup'])
            """
        )
    )
    assert done.stdout.split()[-2:] == ['SiteResNet', '[]'], done.stderr


def test_the_start_up_file_imports_nothing_and_lets_every_import_pass():
    done = python(
        START
        + textwrap.dedent(
            """
            import types
            print(new)
            import json
            try:
                import no_such_module
            except ModuleNotFoundError as error:
                print(error)
            scopes = {'mmdet': ''}
            sys.modules['mmengine.config.utils'] = types.SimpleNamespace(MODULE2PACKAGE=scopes)
            import xmlrpc.client  # The next import enters the package.
            print(scopes, xmlrpc.client.__name__)
            """
        )
    )
    assert done.stdout.splitlines() == [
        'set()',
        "No module named 'no_such_module'",
        "{'mmdet': '', 'polynl_mmdet': 'polynl_mmdet.version'} xmlrpc.client",
    ], done.stderr


def test_the_start_up_file_survives_a_missing_module():
    """The import that enters the package may fail; it must fail as it would without the file."""
    done = python(
        START
        + textwrap.dedent(
            """
            import types
            sys.modules['mmengine.config.utils'] = types.SimpleNamespace(MODULE2PACKAGE={})
            try:
                import no_such_module
            except ModuleNotFoundError as error:
                print(error)
            """
        )
    )
    assert done.stdout.strip() == "No module named 'no_such_module'", done.stderr
