"""Run mmdet's own tools/test.py with this package registered; see ``--help`` for its options.

No checkpoint can run code, unless TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 is set for a trusted file.
"""

from polynl_mmdet.cli import run

if __name__ == '__main__':
    run('test.py')
