"""Every command and Python block of the documentation is run here or where doc_commands.py says."""

from __future__ import annotations

import re
import shlex
import subprocess
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from doc_commands import CI, ELSEWHERE, EXECUTED, HAND, MOBILENET, PLACEHOLDERS, TEST, WEIGHTS
from doc_pages import PAGES, ROOT, blocks, commands
from mmengine.config import Config, DictAction

ALL = [command for page in PAGES for command in commands(page)]


def test_every_command_is_run_somewhere():
    known = set()
    for command in ALL:
        if command.text in EXECUTED or is_assignment(command.text) or is_fragment(command.text):
            known.add(command.text)
            continue
        for pattern, kind, who in ELSEWHERE:
            match = re.fullmatch(pattern, command.text)
            if match:
                known.add(pattern)
                check_runner(command, kind, who.format(*match.groups()), match)
                break
        else:
            pytest.fail(
                f'{command.where}: nothing runs "{command.text}" (tests/docs/doc_commands.py)'
            )
    assert not set(EXECUTED) - known, 'executed, but no longer documented'


def check_runner(command, kind, who, match):
    """Check that the named test or workflow exists and runs the command's script."""
    if kind == HAND:
        return
    if kind == CI:
        workflow = (ROOT / '.github/workflows/ci.yml').read_text()
        assert f'run: {who}\n' in workflow, f'{command.where}: the workflow has no "{who}"'
        return
    assert kind == TEST
    place = ROOT / who
    assert place.exists(), f'{command.where}: {who} is not there'
    text = '\n'.join(path.read_text() for path in ([place] if place.is_file() else
                                                   place.rglob('*.py')))  # fmt: skip
    places = r'(?:tools|benchmarks|validation|\$ANALYSIS)/'
    script = re.search(rf'(?:{places})(\w+)', command.text)
    if script:
        assert script[1] in text, f'{command.where}: {who} does not run {script[1]}'


def is_assignment(text):
    """Tell whether a command sets a variable, such as CONFIG=configs/...; the file must exist."""
    match = re.fullmatch(r'[A-Z_]+=(\S+)', text)
    if match and match[1].startswith('configs/'):
        assert (ROOT / match[1]).is_file(), text
    return match is not None


def is_fragment(text):
    """Tell whether a command is only options; test_config_options_exist checks those."""
    return text.startswith('--')


def config_of(command):
    """Find the config that a command uses: its own, or the last CONFIG=... of its page."""
    page = ROOT / command.where.partition(':')[0]
    named = re.findall(r'(?:configs/\S+\.py)', command.text)
    if not named:
        before = page.read_text().partition(command.words[0])[0]
        named = re.findall(r'CONFIG=(configs/\S+\.py)', before)
        named = named or re.findall(r'CONFIG=(configs/\S+\.py)', page.read_text())
    return ROOT / (named[-1] if named else MOBILENET)


@pytest.mark.parametrize(
    'command',
    [c for c in ALL if '--cfg-options' in c.words],
    ids=lambda c: re.sub(r'\W+', '-', c.text)[:60],
)
def test_config_options_exist(command):
    """Keys given to --cfg-options are in the config, and their values can be parsed."""
    # Every Runner takes randomness, whether or not a config has it.
    cfg = {'randomness': {}, **Config.fromfile(config_of(command)).to_dict()}
    words = command.words[command.words.index('--cfg-options') + 1 :]
    for word in words:
        key, _, value = word.partition('=')
        DictAction._parse_iterable(value)
        *path, _ = key.split('.')
        part = cfg
        for name in path:
            if name == 'init_cfg' and name not in part:  # Every module takes one.
                break
            assert (name in part) if isinstance(part, dict) else int(name) < len(part), word
            part = part[int(name) if isinstance(part, (list, tuple)) else name]


def test_tools_have_help_with_examples_and_the_documented_options(tool_server):
    scripts = sorted(
        path
        for folder in ('tools', 'benchmarks', 'validation')
        for path in (ROOT / folder).glob('*.py')
        if "__name__ == '__main__'" in path.read_text()
    )
    helps = {
        str(script.relative_to(ROOT)): tool_server.run(argv=[str(script), '--help'], cwd=str(ROOT))
        for script in scripts
    }
    for name, (status, text) in helps.items():
        assert status == 0, f'{name}: {text[-2000:]}'
        if name not in ('tools/train.py', 'tools/test.py'):  # mmdet's own texts
            assert f'python {name}' in text, f'{name}: no example in its --help'
    for command in ALL:
        script = next((word for word in command.words if word in helps), None)
        for option in re.findall(r'(?<=\s)--[a-z][\w-]*', command.text) if script else ():
            text = helps[script][1]
            if 'KIND' in text:  # make_toy_data.py's kinds have options of their own
                text += (ROOT / script).read_text()
            assert option in text, f'{command.where}: {script} has no {option}'


@pytest.fixture(scope='module')
def workshop(tmp_path_factory):
    """Path: a folder as the guides assume it, with drawn data."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    from polynl_mmdet.datasets.toy.wider import make_toy_wider
    from polynl_mmdet.wider_face.annotations import read_annotations

    root = tmp_path_factory.mktemp('workshop')
    for name in ('tools', 'configs', 'benchmarks', 'docs'):
        (root / name).symlink_to(ROOT / name)
    data = root / 'data/widerface'
    make_toy_wider(data, train=6, val=3, seed=0, size=96)
    truth = data / 'eval_tools/ground_truth'
    for name in ('ground_truth', 'GROUND_TRUTH_DIR'):
        (root / name).symlink_to(truth)
    (root / 'IMAGES').mkdir()
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    cv2.imwrite(str(root / 'IMAGES/image.jpg'), image)
    (root / 'image.jpg').symlink_to(root / 'IMAGES/image.jpg')
    (data / 'WIDER_test/images/0--Test').mkdir(parents=True)
    cv2.imwrite(str(data / 'WIDER_test/images/0--Test/one.jpg'), image)
    (data / 'wider_face_split/wider_face_test_filelist.txt').write_text('0--Test/one.jpg\n')

    found = read_annotations(str(data / 'wider_face_split/wider_face_val_bbx_gt.txt'))
    boxes = found.boxes()
    for archive in ('predictions.zip', 'PREDICTIONS.zip'):
        with zipfile.ZipFile(root / archive, 'w') as file:
            for index, name in enumerate(found.names):
                rows = boxes[found.starts[index] : found.starts[index + 1]]
                lines = [f'{x:.0f} {y:.0f} {u - x:.0f} {v - y:.0f} 0.9' for x, y, u, v in rows]
                stem = Path(name).with_suffix('')
                file.writestr(f'{stem}.txt', '\n'.join([stem.name, str(len(rows)), *lines]))

    register_all_modules()
    detector = MODELS.build(Config.fromfile(ROOT / MOBILENET).model)
    detector.init_weights()
    # Few faces: drawing the thousands that an untrained detector finds takes long.
    for convolution in detector.bbox_head.conv_cls:
        torch.nn.init.normal_(convolution.weight, std=0.3)
        torch.nn.init.constant_(convolution.bias[1::2], 2.0)
    meta = {'dataset_meta': {'classes': ('face',), 'palette': [(220, 20, 60)]}}
    torch.save({'state_dict': detector.state_dict(), 'meta': meta}, root / WEIGHTS)
    return root


@pytest.mark.slow
def test_commands_run(workshop, tool_server):
    """Run the commands of EXECUTED in their order."""
    pytest.importorskip('onnxruntime')
    documented = {command.text: command for command in ALL}
    for text in EXECUTED:
        words = [PLACEHOLDERS.get(word, word) for word in documented[text].words]
        if words[0] == 'python':
            status, output = tool_server.run(argv=words[1:], cwd=str(workshop))
            assert status == 0, f'{text}:\n{output[-3000:]}'
        else:
            line = ' '.join(word if word == '>' else shlex.quote(word) for word in words)
            subprocess.run(['bash', '-c', line], check=True, cwd=workshop)
    for name in ('aps.json', 'curves.png', 'faces.jpg', 'faces/faces.json', 'OUT.onnx'):
        assert (workshop / name).stat().st_size > 0
    assert (workshop / 'submission/0--Test/one.txt').is_file()


def test_python_blocks_run(workshop, tool_server):
    """Run the blocks of each page in their order; configs are read and their backbones built."""
    run = 0
    for page in PAGES:
        texts = [block.text for block in blocks(page) if block.language in ('python', 'py')]
        if texts:
            status, output = tool_server.run(blocks=texts, cwd=str(workshop))
            assert status == 0, f'{page}:\n{output[-3000:]}'
            run += 1
    assert run >= 5
