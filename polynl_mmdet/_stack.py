"""Which OpenMMLab packages are there, and whether their versions are supported.

The official packages and the onedl forks provide the same import names, so versions are read
from the imported modules and no distribution name is required.
"""

from __future__ import annotations

import importlib
import importlib.util

INSTALL = (
    "pip install 'torch>=2.6' 'setuptools>=77.0.3,<81' wheel ninja psutil && "
    'pip install --no-build-isolation mmcv==2.1.0 && pip install mmengine==0.10.7 mmdet==3.3.0'
)
# Import name: lowest supported version, first unsupported version.
SUPPORTED = {
    # From 2.6 on, weights_only is the default and allow-lists can name stand-ins.
    'torch': ((2, 6), (3, 0)),
    'mmengine': ((0, 8), (1, 0)),
    'mmcv': ((2, 0), (3, 0)),
    'mmdet': ((3, 0), (4, 0)),
}


def present(name: str) -> bool:
    """Whether a package of that import name is installed.

    Returns:
        bool: True where it can be found; it is not imported.
    """
    return importlib.util.find_spec(name) is not None


def require(*names: str) -> None:
    """Import the packages and compare their versions with the supported ones.

    Args:
        *names (str): Import names, keys of ``SUPPORTED``.

    Raises:
        ImportError: One is missing, does not import or has an unsupported version; the message
            carries the command that mends it.
    """
    for name in names:
        (low, high) = SUPPORTED[name]
        accepted = f'{_dotted(low)} <= {name} < {_dotted(high)}'
        if not present(name):
            raise ImportError(
                f'polynl_mmdet needs {name} ({accepted}), which is missing. {_cure()}'
            )
        try:
            module = importlib.import_module(name)
        except (ImportError, AssertionError) as error:
            # mmdet asserts its mmcv and mmengine versions; mmcv without its operators lacks _ext.
            raise ImportError(
                f'polynl_mmdet needs {name}, which fails: {error}. {_cure()}'
            ) from error
        if not low <= _numbers(module.__version__) < high:
            raise ImportError(
                f'polynl_mmdet needs {accepted}, found {module.__version__}. {_cure()}'
            )


def _cure() -> str:
    return f'To install versions that fit each other: {INSTALL}'


def _numbers(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split('.')[:2]:
        digits = part[: len(part) - len(part.lstrip('0123456789'))]
        numbers.append(int(digits or 0))
    return tuple(numbers)


def _dotted(version: tuple[int, ...]) -> str:
    return '.'.join(map(str, version))
