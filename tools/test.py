"""mmdet's own tools/test.py with this package's models, data and checks at hand.

Options are mmdet's, unchanged: see ``python tools/test.py --help``.
"""

from polynl_mmdet.cli.mmdet_tools import run

if __name__ == '__main__':
    run('test.py')
