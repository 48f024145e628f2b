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


def version():
    """str: the package's version, read without importing it."""
    scope = {}
    exec((ROOT / 'polynl_mmdet' / 'version.py').read_text(encoding='utf-8'), scope)
    return scope['__version__']


class BuildWithMim(build_py):
    """Adds ``polynl_mmdet/.mim``: copies for a wheel, links for an editable install.

    A wheel also gets the start-up file beside the package (see polynl_mmdet/_lookup.py).
    """

    def run(self):
        """Build the modules, then place the rest."""
        if not self.editable_mode:
            # Modules of an earlier build that are gone from the source would be packed again.
            shutil.rmtree(Path(self.build_lib) / 'polynl_mmdet', ignore_errors=True)
        super().run()
        if self.editable_mode:
            self._place(ROOT / 'polynl_mmdet' / '.mim', link=True)
        else:
            self._place(Path(self.build_lib) / 'polynl_mmdet' / '.mim', link=False)
            shutil.copy(ROOT / STARTUP, self.build_lib)

    def _place(self, target, link):
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
        for part in MIM_PARTS:
            source = ROOT / part
            if link:
                (target / part).symlink_to(source, target_is_directory=source.is_dir())
            elif source.is_dir():
                shutil.copytree(
                    source, target / part, ignore=shutil.ignore_patterns('__pycache__', '*.pyc')
                )
            else:
                shutil.copy(source, target / part)


class WithData(Distribution):
    """Lets an editable install carry data files: setuptools asks for a method of this name."""

    def has_data(self):
        """bool: whether there are data files."""
        return bool(self.data_files)


def startup_file():
    """list: the start-up file for an editable install, which has no build folder to copy."""
    if 'editable_wheel' not in sys.argv:
        return []
    site_packages = sysconfig.get_path('purelib', vars={'base': '', 'platbase': ''})
    return [(site_packages.lstrip('/'), [STARTUP])]


setup(
    name='polynl_mmdet',
    version=version(),
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
    distclass=WithData,
    data_files=startup_file(),
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
        'tests': [
            'hypothesis',
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
