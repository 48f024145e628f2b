r"""Where each command of the documentation is run.

A command that is neither in :data:`EXECUTED` nor fits a pattern of :data:`ELSEWHERE` fails the
test. Add it to the first if a CPU runs it in seconds, else to the second with what runs it.
"""

from __future__ import annotations

MOBILENET = 'configs/retinaface/retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'
WEIGHTS = 'retinaface_mobilenet0.25.pth'

# Verbatim, in an order in which each finds the files that it needs.
EXECUTED = (
    'python tools/check_wider_face.py data/widerface',
    'python tools/browse_faces.py CONFIG --out faces.jpg',
    'python tools/eval_wider_face.py PREDICTIONS.zip GROUND_TRUTH_DIR',
    'python tools/eval_wider_face.py predictions.zip ground_truth --json aps.json '
    '--plot curves.png',
    f'python tools/test.py {MOBILENET} {WEIGHTS}',
    f'python tools/face_demo.py IMAGES {MOBILENET} {WEIGHTS} --out faces',
    'sed s/^/# / data/widerface/wider_face_split/wider_face_test_filelist.txt > '
    'data/widerface/test.txt',
    'python tools/test.py $CONFIG CHECKPOINT --tta --cfg-options '
    'test_dataloader.dataset.ann_file=test.txt '
    'test_dataloader.dataset.data_prefix.img=WIDER_test/images/ '
    'test_evaluator.format_only=True test_evaluator.outfile_prefix=submission',
    'python tools/export_onnx.py CONFIG CHECKPOINT OUT.onnx --image IMAGE',
    'python tools/onnx_face_demo.py OUT.onnx IMAGE --out faces',
)
# Words that readers replace by names of their own.
PLACEHOLDERS = {
    'CONFIG': MOBILENET,
    '$CONFIG': MOBILENET,
    'CHECKPOINT': WEIGHTS,
    'IMAGE': 'IMAGES/image.jpg',
}

TEST, CI, HAND = 'test', 'ci', 'by hand'
# Pattern of a command, and what runs it:
#   TEST: this test file, which names the script ('{}' is the first group of the pattern);
#   CI: the workflow, by this command or make target;
#   HAND: nothing, for this reason.
ELSEWHERE = (
    (r'make (install|test|demo)', CI, 'make {}'),
    (r'make (install|demo) TORCH=cpu', HAND, 'the workflow sets TORCH=cpu for make install'),
    (r'make test-fast', HAND, 'a part of make test'),
    (
        r'make gpu-check',
        HAND,
        'takes a GPU; tests/validation/test_gpu_check.py runs its steps on a CPU',
    ),
    (r'make gpu-check ARGS=--quick', TEST, 'tests/validation/test_gpu_check.py'),
    (r'make lint', CI, 'ruff check .'),
    (r'apt-get install .*', HAND, "changes the machine's packages"),
    (r'make demo-face', TEST, 'tests/configs/test_retinaface_runs.py'),
    (r'make test STACK=onedl.*', HAND, 'builds a second family of OpenMMLab packages'),
    (r'make test PYTEST_ARGS=.*', HAND, 'the same tests, in another order'),
    (r'(TORCH|PIP_ARGS|MAX_JOBS)=.* make install', HAND, 'variants of make install'),
    (r'STACK=onedl make .*|make \w+ STACK=onedl', HAND, 'builds the forks for minutes'),
    (r'pip (un)?install .*', HAND, 'changes the environment; make install does it in CI'),
    (r'pip wheel .*', TEST, 'tests/ecosystem/conftest.py'),
    (r'pre-commit install', HAND, "changes the clone's hooks"),
    (r'mim .*', HAND, 'openmim is not a requirement; tests/ecosystem runs the scripts it starts'),
    (r'python \$ANALYSIS/benchmark\.py CONFIG --task inference .*', HAND, 'needs a GPU'),
    (r'python \$ANALYSIS/(\w+\.py) .*', TEST, 'tests/ecosystem/test_other_project.py'),
    (r'(?:GPUS=\d+ )?(tools/slurm_\w+\.sh) .*', HAND, 'needs Slurm'),
    (r'tools/dist_(?:train|test)\.sh .*', TEST, 'tests/tools/test_train_and_test.py'),
    (r'python tools/(?:train|test)\.py .*', TEST, 'tests/tools/test_train_and_test.py'),
    (r'python tools/make_toy_data\.py wider .*', TEST, 'tests/configs/test_retinaface_runs.py'),
    (r'python tools/(\w+)\.py .*', TEST, 'tests/tools/test_{}.py'),
    (r'python tools/(insertion_sites)\.py', TEST, 'tests/tools/test_{}.py'),
    (r'python (?:benchmarks|validation)/(\w+\.py)( .*)?', TEST, 'tests'),
    (r'python -m pytest .*', CI, 'make test'),
    (r'python -c import mmdet; .*', TEST, 'tests/ecosystem/test_other_project.py'),
    (r'python -c import polynl_mmdet; .*', TEST, 'tests/ecosystem/conftest.py'),
)
