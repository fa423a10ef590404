# SPDX-License-Identifier: Apache-2.0
"""What machines for training lack is not needed there."""

import subprocess
import sys

import pytest

ABSENT = '''
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in sys.argv[1].split():
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
'''
NO_SCENES = 'open3d trimesh rclpy skimage'


@pytest.mark.parametrize('modules, absent', [
    (('learning.training', 'learning.dataset'),
     f'{NO_SCENES} rich transformers timm torchvision'),
    (('learning.detector_training',), NO_SCENES),
    (('models.instances', 'learning.metrics'), f'{NO_SCENES} safetensors yaml'),
    (('learning.samples',), 'open3d trimesh torch'),
    (('learning.packed_shapes',), 'open3d trimesh torch cv2 scipy rich yaml'),
])
def test_modules_need_no_more_than_they_say(modules, absent):
    code = ABSENT + ''.join(f'import img2scene_ros.{name}\n' for name in modules)
    subprocess.run([sys.executable, '-c', code, absent], check=True)


@pytest.mark.parametrize('command', ['train', 'train-detector'])
def test_commands_start_without_what_draws_scenes(command):
    code = ABSENT + (
        'from img2scene_ros.cli import main\n'
        f"sys.exit(main([{command!r}, '--data', 'nowhere', '--out', 'x']))\n")
    result = subprocess.run(
        [sys.executable, '-c', code, NO_SCENES], capture_output=True, text=True)
    assert result.returncode == 1 and "'nowhere' is no data set" in result.stderr, result.stderr
