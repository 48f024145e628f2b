"""The wheel: what is in it, and what finds it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CONFIG = 'mask_rcnn/mask-rcnn_r50-polynl-site-c4_fpn_1x_coco.py'
DEMO = 'demo/mask-rcnn_narrow-r18-polynl-site-c4_fpn_toy-coco.py'


def test_it_holds_configs_tools_and_the_index(installed):
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = set(wheel.namelist())
    mim = 'polynl_mmdet/.mim/'
    for folder in ('configs', 'tools'):
        for path in (ROOT / folder).rglob('*'):
            if path.is_file() and '__pycache__' not in path.parts:
                assert mim + path.relative_to(ROOT).as_posix() in names
    assert mim + 'model-index.yml' in names
    assert 'polynl_mmdet_lookup.pth' in names
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'polynl_mmdet').rglob('*.py')}
    modules = {name for name in modules if '/.mim/' not in name}
    assert modules == {n for n in names if n.endswith('.py') and '/.mim/' not in n}
    others = {name for name in names if not name.startswith('polynl_mmdet')}
    assert not others, 'something beside the package'


def test_configs_are_found_from_any_directory(installed, tmp_path):
    (tmp_path / 'mine.py').write_text(f"_base_ = 'polynl_mmdet::{CONFIG}'\nmodel = dict(x=1)\n")
    done = installed(
        'from mmengine.config import Config; cfg = Config.fromfile("mine.py"); '
        'print(cfg.model.backbone.type, cfg.model.x)',
        cwd=tmp_path,
    )
    assert done.stdout.split() == ['SiteResNet', '1']


def test_mmengine_hub(installed, tmp_path):
    """Of a family's config and of a demo's."""
    done = installed(
        'import mmengine.hub\n'
        'from mmengine.registry import DefaultScope\n'
        f'for name in {(CONFIG, DEMO)}:\n'
        '    print(mmengine.hub.get_config("polynl_mmdet::" + name).filename)\n'
        '    model = mmengine.hub.get_model("polynl_mmdet::" + name)\n'
        '    print(type(model).__name__, type(model.backbone).__module__)\n'
        '    print(DefaultScope.get_current_instance())',
        cwd=tmp_path,
    )
    lines = done.stdout.strip().splitlines()[-6:]
    for filename, model, scope in (lines[:3], lines[3:]):
        assert Path(filename).is_relative_to(installed.package / '.mim')
        assert model == 'MaskRCNN polynl_mmdet.models.backbones.resnet_sites'
        assert scope == 'None'  # as it was before


def test_ops_without_anything_of_mm(installed):
    code = (
        'import sys\n'
        'for name in ("mmengine", "mmcv", "mmdet"): sys.modules[name] = None\n'
        'import importlib.util as u; find = u.find_spec\n'
        'u.find_spec = lambda n, *a: None if n in sys.modules and not sys.modules[n] else find(n)\n'
        'import torch; from polynl_mmdet.ops import poly_nl; print(poly_nl.__module__)\n'
    )
    assert installed(code).stdout.strip() == 'polynl_mmdet.ops.poly_nl'


def test_every_config_has_an_entry_in_the_index():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    listed, collections = {}, set()
    for name in index['Import']:
        metafile = yaml.safe_load((ROOT / name).read_text())
        collections |= {collection['Name'] for collection in metafile['Collections']}
        listed.update({model['Config']: model for model in metafile['Models']})
        for collection in metafile['Collections']:
            assert collection['Paper']['URL'].startswith('https://arxiv.org/')
            assert (ROOT / collection['README']).is_file()
            assert collection['Metadata']['Training Resources']
    configs = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / 'configs').rglob('*.py')
        if '_base_' not in path.parts
    }
    assert set(listed) == configs
    for config, model in listed.items():
        assert model['Name'] == Path(config).stem
        assert model['In Collection'] in collections
        # Nothing was trained on the real data sets yet: results are on drawn ones.
        assert all('drawn' in result['Dataset'] for result in model.get('Results', ()))
