# SPDX-License-Identifier: Apache-2.0
"""Installs the package; its dependencies are in package.xml and requirements.txt."""

from glob import glob

from setuptools import find_packages
from setuptools import setup

package_name = 'img2scene'

setup(
    name=package_name,
    version='0.2.0',
    packages=find_packages(include=['img2scene_ros', 'img2scene_ros.*']),
    package_data={
        'img2scene_ros.localization': ['*.yaml'],
        'img2scene_ros.weights': ['*/*'],
    },
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{package_name}']),
        (f'share/{package_name}', ['package.xml']),
        (f'share/{package_name}/launch', glob('launch/*.launch.py')),
        (f'share/{package_name}/config', glob('config/*.*')),
        (f'share/{package_name}/config/cameras', glob('config/cameras/*.yaml')),
        (f'share/{package_name}/config/train', glob('config/train/*.yaml')),
        (f'share/{package_name}/scripts', glob('scripts/*')),
        *((f'share/{package_name}/frames/{name}', glob(f'data/frames/{name}/*'))
          for name in ('ycb_1', 'table_blue_mug')),
    ],
    # The least versions are those of Ubuntu 24.04. OpenCV, Open3D and torch go by several names or
    # are optional, so they are in requirements.txt; `img2scene doctor` tells what is missing.
    install_requires=[
        'PyYAML', 'numpy>=1.26', 'pillow>=10.2', 'requests', 'rich', 'scikit-image>=0.22',
        'scipy>=1.11', 'setuptools', 'trimesh>=4.12'],
    extras_require={
        'test': ['pytest'],  # by which colcon knows that pytest runs the tests
        'train': ['safetensors', 'tensorboard', 'torch', 'transformers'],  # not for a robot
    },
    python_requires='>=3.10',
    zip_safe=False,
    maintainer='img2scene maintainers',
    maintainer_email='maintainers@img2scene.example',
    description='Object models for robots: camera images in, posed closed meshes out.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'img2scene = img2scene_ros.cli:main',
            'scene_node = img2scene_ros.nodes.process:scene_node',
            'detector_node = img2scene_ros.nodes.process:detector_node',
            'replay_node = img2scene_ros.nodes.process:replay_node',
        ],
    },
)
