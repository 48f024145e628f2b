"""Installs the package with its configs and tools where mim and mmengine look for them.

No OpenMMLab package is required by name: the official ones and the onedl forks both provide
``mmcv``, ``mmdet`` and ``mmengine``. What is missing is told at import.
"""

import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
MIM_PARTS = ('configs', 'tools', 'model-index.yml')
STARTUP = 'polynl_mmdet_lookup.pth'
VERSION = {}
exec((ROOT / 'polynl_mmdet/version.py').read_text(encoding='utf-8'), VERSION)


class BuildWithMim(build_py):
    """Adds ``polynl_mmdet/.mim`` (links in an editable install) and the start-up file."""

    def run(self):
        """Build the modules, then place the rest."""
        root = ROOT if self.editable_mode else Path(self.build_lib)
        if not self.editable_mode:
            # Modules of an earlier build that are gone from the source would be packed again.
            shutil.rmtree(root / 'polynl_mmdet', ignore_errors=True)
        super().run()
        mim = root / 'polynl_mmdet/.mim'
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir()
        for part in MIM_PARTS:
            if self.editable_mode:
                (mim / part).symlink_to(ROOT / part, target_is_directory=(ROOT / part).is_dir())
            elif (ROOT / part).is_dir():
                no_cache = shutil.ignore_patterns('__pycache__')
                shutil.copytree(ROOT / part, mim / part, ignore=no_cache)
            else:
                shutil.copy(ROOT / part, mim)
        if not self.editable_mode:
            shutil.copy(ROOT / STARTUP, root)


# An editable install has no build folder for the start-up file: it is a data file, which
# setuptools installs where a distribution says by a method of this name that it has any.
Distribution.has_data = Distribution.has_data_files
SITE_PACKAGES = sysconfig.get_path('purelib', vars={'base': '', 'platbase': ''}).lstrip('/')
DATA_FILES = [(SITE_PACKAGES, [STARTUP])] if 'editable_wheel' in sys.argv else []

setup(
    name='polynl_mmdet',
    version=VERSION['__version__'],
    description='Poly-NL and linear-cost non-local layers for OpenMMLab detectors',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Operating System :: MacOS',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(10, 15)),
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    packages=find_packages(include=['polynl_mmdet', 'polynl_mmdet.*']),
    package_dir={'': '.'},
    data_files=DATA_FILES,
    cmdclass={'build_py': BuildWithMim},
    install_requires=[
        'matplotlib',
        'numpy',
        'pillow',
        'pycocotools',
        'scipy',
        # mmengine imports pkg_resources at run time, which setuptools 81 no longer has.
        'setuptools<81',
        'tqdm',
    ],
    extras_require={
        'deploy': ['onnx', 'onnxruntime'],
        'faster': ['faster-coco-eval'],
        'tests': [
            'faster-coco-eval',
            'hypothesis',
            'ipykernel',
            'nbclient',
            'onnx',
            'onnxruntime',
            'pytest',
            'pytest-xdist',
            'seaborn',
            'tensorboard',
        ],
        'lint': ['ruff>=0.17,<0.18'],
    },
)
