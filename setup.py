"""Installs the package, with its configs and tools where mim and mmengine look for them.

No OpenMMLab package is required by name: the official ones and the onedl forks both provide
``mmcv``, ``mmdet`` and ``mmengine``.
"""

import shutil
from pathlib import Path

from setuptools import Command, Distribution, find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
MIM_PARTS = ('configs', 'tools', 'model-index.yml')
VERSION = {}
exec((ROOT / 'polynl_mmdet/version.py').read_text(encoding='utf-8'), VERSION)


class BuildWithMim(build_py):
    """Adds ``polynl_mmdet/.mim`` (links in an editable install)."""

    def run(self):
        """Build the modules, then copy or link the rest."""
        root = ROOT if self.editable_mode else Path(self.build_lib)
        if not self.editable_mode:
            # Files of an earlier build.
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


class InstallStartUp(Command):
    """Writes the file that imports ``polynl_mmdet_lookup`` when Python starts."""

    user_options = []

    def initialize_options(self):
        """Take no options."""

    def finalize_options(self):
        """Take no options."""

    def run(self):
        """Write the file beside the package."""
        folder = Path(self.get_finalized_command('install').install_lib)
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / 'polynl_mmdet_lookup.pth'
        self.file.write_text('import polynl_mmdet_lookup\n')

    def get_outputs(self):
        """Name the file."""
        return [str(self.file)]


class DistributionWithData(Distribution):
    """Has data files: the start-up file is one, also in an editable install."""

    def has_data_files(self):
        """Let a wheel run ``install_data``."""
        return True

    has_data = has_data_files  # the name that an editable wheel asks for


setup(
    name='polynl_mmdet',
    version=VERSION['__version__'],
    description='Poly-NL and linear-cost non-local layers for OpenMMLab detectors',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    project_urls={'Paper': 'https://arxiv.org/abs/2107.02859'},
    python_requires='>=3.8',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Operating System :: MacOS',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(8, 15)),
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    packages=find_packages(include=['polynl_mmdet', 'polynl_mmdet.*']),
    package_dir={'': '.'},
    py_modules=['polynl', 'polynl_mmdet_lookup'],
    entry_points={'console_scripts': ['polynl = polynl:main']},
    distclass=DistributionWithData,
    cmdclass={'build_py': BuildWithMim, 'install_data': InstallStartUp},
    install_requires=['matplotlib', 'numpy', 'pillow', 'pycocotools', 'scipy', 'tqdm'],
    extras_require={
        'deploy': ['onnx', 'onnxruntime'],
        'tests': [
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
