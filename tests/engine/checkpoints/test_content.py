"""What mmengine would execute or delete after a load is named."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from polynl_mmdet.engine.checkpoints.content import check_content
from polynl_mmdet.errors import InputError


def test_texts_of_real_configs_are_plain(repo_root):
    paths = [*repo_root.glob('configs/*/*.py')]
    assert len(paths) > 10
    for path in paths[::8]:
        text = Config.fromfile(str(path)).pretty_text
        runtime = dict(runtime_info=dict(cfg=text))
        check_content('x.pth', dict(meta=dict(cfg=text), message_hub=runtime))


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('import os', 'Import in line 1'),
        ('a = 1\nb = [print(x) for x in a]', 'ListComp in line 2|call of print'),
        ('a = (lambda: 1)', 'Lambda'),
        ('def f(): pass', 'FunctionDef'),
        ('a = dict(b=open("x"))', 'a call of open in line 1'),
        ('a = 9**9**9', 'BinOp'),
        ('_base_ = ["x.py"]', 'a _base_'),
        ('a = f"{b}"', 'JoinedStr'),
        ('a = b[0]', 'Subscript'),
        ('a = "{{$HOME:x}}"', 'a variable'),
        ('a = {{$X:print(1)}}', 'a variable'),
        ('# a comment\rprint(1)', 'a call of print in line 2'),
        (b'a = 1', 'a bytes'),
    ],
)
def test_code_in_a_config_text_is_named(text, says):
    with pytest.raises(InputError, match=says) as caught:
        check_content('x.pth', {'meta': {'cfg': text}})
    assert str(caught.value).startswith('x.pth: meta.cfg: refused')


def test_text_that_cannot_be_executed_is_accepted():
    check_content('x.pth', {'meta': {'cfg': "a = dict(type=<class 'int'>)"}})


def test_the_best_checkpoint_of_a_run_is_accepted():
    runtime = {
        'best_ckpt': 'work dirs/ä/best_coco_segm_mAP_epoch_3.pth',
        'best_ckpt_face': None,
        'keep_ckpt_ids': [1, 2],
    }
    check_content('x.pth', {'message_hub': {'runtime_info': runtime}})
    for bad in ('/home/x', 'best_a.pth/..', '../best', 'best_x.pth/', 7):
        with pytest.raises(InputError, match='training would delete'):
            check_content('x.pth', {'message_hub': {'runtime_info': {'best_ckpt': bad}}})
