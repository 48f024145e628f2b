"""The console command: ``polynl TOOL ...`` runs a tool of this package.

A module outside the package: importing that imports mmdet too, which not all tools need.
"""

import ast
import difflib
import sys
import types
from pathlib import Path

FOLDER = Path(__file__).parent / 'polynl_mmdet' / '.mim' / 'tools'
TOOLS = {
    'train': 'train.py',
    'test': 'test.py',
    'eval-wider-face': 'eval_wider_face.py',
    'check-wider-face': 'check_wider_face.py',
    'convert-retinaface': 'convert_retinaface.py',
    'export-onnx': 'export_onnx.py',
    'faces': 'face_demo.py',
    'compare': 'compare_runs.py',
    'report': 'report_run.py',
}


def usage() -> str:
    """List the tools, each with the first line of its docstring."""
    lines = ['usage: polynl TOOL ...   (polynl TOOL --help: its options)', '']
    for name, file in TOOLS.items():
        source = (FOLDER / file).read_text(encoding='utf-8')
        lines.append(f'  {name:20}{ast.get_docstring(ast.parse(source)).splitlines()[0]}')
    return '\n'.join(lines)


def main() -> None:
    """Run the tool that the first argument names, as ``python tools/NAME.py`` does."""
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('-h', '--help'):
        print(usage())
    elif name in TOOLS:
        sys.argv[:2] = [f'polynl {name}']
        sys.path.insert(0, str(FOLDER))
        # Not runpy: that sets sys.argv[0], which --help shows.
        tool = sys.modules['__main__'] = types.ModuleType('__main__')
        tool.__file__ = str(FOLDER / TOOLS[name])
        source = Path(tool.__file__).read_text(encoding='utf-8')
        exec(compile(source, tool.__file__, 'exec'), tool.__dict__)
    else:
        near = difflib.get_close_matches(name, TOOLS, n=1)
        hint = f', did you mean {near[0]}?' if near else ''
        sys.exit(f'polynl: no tool {name}{hint}\n\n{usage()}')


if __name__ == '__main__':
    main()
