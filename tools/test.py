"""Run mmdet's own tools/test.py with this package's models, data sets and checks.

Options are mmdet's, unchanged: see ``python tools/test.py --help``. No checkpoint can run code;
POLYNL_TRUST_CHECKPOINTS=1 loads a file that you trust, whatever is in it.
"""

from polynl_mmdet.cli.mmdet_tools import run

if __name__ == '__main__':
    run('test.py')
