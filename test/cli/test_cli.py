# SPDX-License-Identifier: Apache-2.0
"""The command line as a user types it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags
from PIL import Image
from recorded_bags import write_bag

from img2scene_ros.cli import main
from img2scene_ros.cli.terminal import print_objects
from img2scene_ros.detection import bbox_of
from img2scene_ros.io.frames import load_frame
from img2scene_ros.types import Detection

FRAMES = Path(__file__).resolve().parents[2] / 'data/frames'


def run(
    *arguments: object, cwd: Path | None = None, **variables: str,
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-m', 'img2scene_ros.cli', *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env=os.environ | variables)


def assert_one_sentence(result: subprocess.CompletedProcess, code: int, *words: str) -> None:
    assert result.returncode == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith('img2scene: error: ')]
    assert lines == result.stderr.splitlines() and len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]


def copy_frame(name: str, folder: Path) -> Path:
    """Copy a recorded frame at half its size, which is quicker."""
    folder.mkdir(parents=True)
    for picture in ('color.png', 'depth.png'):
        image = cv2.imread(str(FRAMES / name / picture), cv2.IMREAD_UNCHANGED)
        # Every second pixel: pixel u of the copy is pixel 2 u of the original.
        cv2.imwrite(str(folder / picture), image[::2, ::2])
    camera = json.loads((FRAMES / name / 'camera.json').read_text())
    camera['width'], camera['height'] = camera['width'] // 2, camera['height'] // 2
    camera['K'] = (np.reshape(camera['K'], (3, 3)) * [[0.5], [0.5], [1.0]]).tolist()
    (folder / 'camera.json').write_text(json.dumps(camera))
    return folder


@pytest.fixture(scope='module')
def bottle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_frame('table_mustard_bottle', tmp_path_factory.mktemp('one') / 'bottle')


@pytest.fixture(scope='module')
def table_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two frames and one that cannot be read."""
    folder = tmp_path_factory.mktemp('frames')
    for name in ('table_blue_mug', 'table_mustard_bottle'):
        copy_frame(name, folder / name)
    shutil.copytree(folder / 'table_blue_mug', folder / 'broken')
    (folder / 'broken/camera.json').write_text('{}')
    return folder


@pytest.fixture(scope='module')
def several(table_frames: Path) -> tuple[subprocess.CompletedProcess, Path]:
    """Reconstruct a folder of frames, one of them broken."""
    out = table_frames.parent / f'{table_frames.name}-out'
    return run('reconstruct', table_frames, '--reconstructor', 'box', '--out', out), out


@pytest.mark.slow
def test_frame_folder_goes_straight_into_out(tmp_path, bottle):
    result = run('reconstruct', bottle, '--out', tmp_path / 'here')
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / 'here/objects.json').read_text())
    near = [item for item in summary['objects'] if item['position_m'][2] < 0.9]
    assert len(near) == 1
    assert (tmp_path / 'here' / near[0]['mesh']).is_file()
    measured = json.loads((FRAMES / 'table_mustard_bottle/measured.json').read_text())
    assert near[0]['size_m'][2] == pytest.approx(measured['height_above_table_m'], abs=0.01)
    for text in ('voxel', 'sensor', f"{1000 * near[0]['size_m'][2]:.0f}", 'yes'):
        assert text in result.stdout


def test_several_inputs_get_a_folder_each(several):
    _, out = several
    assert {path.name for path in out.iterdir()} == {'table_blue_mug', 'table_mustard_bottle'}
    for name in ('table_blue_mug', 'table_mustard_bottle'):
        assert (out / name / 'scene.png').is_file()


def test_failing_input_is_reported_and_the_others_go_on(several):
    result, _ = several
    assert_one_sentence(result, 1, 'broken', 'camera.json')


def test_unexpected_fault_with_one_input_stops_no_other(
        tmp_path, table_frames, monkeypatch, capsys):
    from img2scene_ros.detection.tabletop import TabletopDetector

    original, seen = TabletopDetector.detect, []

    def fails_first(self, frame):
        seen.append(frame)
        return 1 / 0 if len(seen) == 1 else original(self, frame)

    monkeypatch.setattr(TabletopDetector, 'detect', fails_first)
    frames = [str(table_frames / name) for name in ('table_blue_mug', 'table_mustard_bottle')]
    assert main(['reconstruct', *frames, '--reconstructor', 'box', '--out', str(tmp_path)]) == 1
    assert 'ZeroDivisionError' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['table_mustard_bottle']
    assert main(['reconstruct', frames[0], '--out', str(tmp_path / 'x')]) == 0


def test_formats_of_the_meshes_are_as_asked_for(tmp_path, bottle):
    assert main(['reconstruct', str(bottle), '--out', str(tmp_path), '--reconstructor', 'box',
                 '--formats', 'obj,stl', '--set', 'export.collision=hull']) == 0
    suffixes = {path.suffix for path in (tmp_path / 'meshes').iterdir()}
    assert {'.obj', '.stl'} <= suffixes <= {'.obj', '.stl', '.mtl', '.png'}


def test_output_goes_to_out_and_the_inputs_name_by_default(tmp_path, bottle):
    """Whatever its name, and on a terminal that cannot show it."""
    name = os.fsdecode('phötö [red] 100% %s'.encode() + b'\xff')
    shutil.copy(bottle / 'color.png', tmp_path / f'{name}.png')
    result = run(
        'reconstruct', f'{name}.png', '--depth', bottle / 'depth.png',
        '--camera', bottle / 'camera.json', '--set', 'reconstructor=box', cwd=tmp_path,
        PYTHONIOENCODING='ascii')
    assert result.returncode == 0, result.stderr
    assert result.stderr == '' and '100% %s' in result.stdout
    summary = json.loads((tmp_path / 'out' / name / 'objects.json').read_text())
    assert {item['reconstructor'] for item in summary['objects']} == {'box'}


def test_equal_names_do_not_overwrite_each_other(tmp_path, bottle):
    inputs = [shutil.copytree(bottle, tmp_path / place) for place in (
        'a/frame', 'b/frame', 'frame_2')]
    code = main(['reconstruct', *map(str, inputs), '--reconstructor', 'box', '--out',
                 str(tmp_path / 'out')])
    assert code == 0
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {
        'frame', 'frame_2', 'frame_2_2'}


def test_options_have_the_names_of_the_ros_parameters(tmp_path, bottle):
    params = tmp_path / 'params.yaml'
    params.write_text('img2scene: {ros__parameters: {tabletop: {max_distance: 0.9},\n'
                      '  detector: tabletop, reconstructor: box, autostart: true}}')
    for arguments, found in (
            (['--params', str(params)], 1),
            (['--params', str(params), '--set', 'tabletop.max_distance=0.3'], 0)):
        assert main(['reconstruct', str(bottle), '--out', str(tmp_path / 'out'),
                     *arguments]) == 0
        objects = json.loads((tmp_path / 'out/objects.json').read_text())['objects']
        assert len(objects) == found
        assert all(item['reconstructor'] == 'box' for item in objects)


def test_noise_of_a_stereo_camera_reaches_the_positions_standard_deviation(tmp_path, bottle):
    fx, objects = json.loads((bottle / 'camera.json').read_text())['K'][0][0], []
    for noise in ((), ('model=stereo', 'baseline=0.1', 'disparity_std=5.0')):
        options = [word for one in noise for word in ('--set', f'depth_noise.{one}')]
        assert main(['reconstruct', str(bottle), '--out', str(tmp_path), '--reconstructor', 'box',
                     '--set', 'tabletop.max_distance=0.9', *options]) == 0
        objects += json.loads((tmp_path / 'objects.json').read_text())['objects']
    usual, stereo = (item['position_std_m'][2] for item in objects)
    of_sensor = 5.0 * objects[1]['position_m'][2] ** 2 / (fx * 0.1)
    assert of_sensor > 1.2 * usual
    assert stereo == pytest.approx(np.hypot(usual, of_sensor), rel=0.1)


@pytest.mark.parametrize('arguments, code, words', [
    (['reconstruct'], 2, ['COLOR']),
    (['paint'], 2, ['paint']),
    (['reconstruct', 'nowhere.png', '--detector', 'tabletop'], 1, ['nowhere.png']),
    (['reconstruct', 'empty', '--out', 'x'], 1, ['no frames']),
    (['reconstruct', 'text.png', '--detector', 'tabletop'], 1,
     ['text.png', 'not a picture']),
    (['reconstruct', 'a.png', '--detector', 'psychic'], 2, ['psychic', 'tabletop']),
    (['reconstruct', 'nowhere.png', '--set', 'tabletop.hight=1'], 2, ['tabletop.hight']),
    (['reconstruct', 'nowhere.png', '--set', 'tabletop.min_height=low'], 2, ['min_height']),
    (['reconstruct', 'nowhere.png', '--params', 'nowhere.yaml'], 1, ['nowhere.yaml']),
    (['reconstruct', 'a.png', '--formats', 'fbx'], 2, ['fbx', 'glb, obj, ply, stl, dae']),
    (['reconstruct', 'a.png', '--set', 'export.collision=x'], 2, ['convex_parts']),
    (['reconstruct', 'a.png', '--set', 'depth_noise.model=sonar'], 2, ['depth_noise', 'stereo']),
    (['reconstruct', 'a.png', 'b.png', '--depth', 'd.png'], 2, ['--depth']),
    (['reconstruct', 'a.png', '--depth', 'd.png', '--depth-unit', 'inch'], 2, ['inch', 'mm']),
    (['reconstruct', 'a.png', '--every', '0'], 2, ['--every']),
    (['reconstruct', 'nowhere.mcap'], 1, ['nowhere.mcap']),
    (['reconstruct', 'n' * 300], 1, ['nnn']),
    (['demo', '--frames', 'nowhere'], 1, ['nowhere']),
    (['demo', '--out', 'text.png'], 1, ['text.png']),
    (['demo', '--frames', 'nowhere.mcap'], 1, ['no recording', 'nowhere.mcap']),
])
def test_wrong_usage_is_one_sentence(tmp_path, arguments, code, words):
    (tmp_path / 'text.png').write_text('no picture')
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((3, 4, 3), np.uint8))
    (tmp_path / 'empty').mkdir()
    assert_one_sentence(run(*arguments, cwd=tmp_path), code, *words)


def test_output_that_nobody_reads_is_no_fault(tmp_path):
    """As behind `| head -1`."""
    with subprocess.Popen(
            [sys.executable, '-m', 'img2scene_ros.cli', 'reconstruct', '--help-options'],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ''
    assert process.returncode == 141


def test_output_on_a_full_disk_is_one_sentence():
    with open('/dev/full', 'w') as full:
        result = subprocess.run(
            [sys.executable, '-m', 'img2scene_ros.cli', 'reconstruct', '--help-options'],
            stdout=full, stderr=subprocess.PIPE, text=True)
    assert_one_sentence(result, 1, 'No space left')


def objects(folder: Path) -> list[dict]:
    return json.loads((folder / 'objects.json').read_text())['objects']


@pytest.mark.slow
def test_recordings_give_a_scene_for_every_nth_frame(tmp_path, bottle):
    bag = write_bag(tmp_path / 'tour', [load_frame(bottle)] * 3)
    assert main(['reconstruct', str(bag), '--every', '2', '--out', str(tmp_path / 'out')]) == 0
    names = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert names == [f'{bag.stem}_000000', f'{bag.stem}_000002']
    assert main(['reconstruct', str(bottle), '--out', str(tmp_path / 'one')]) == 0
    expected, = objects(tmp_path / 'one')
    for name in names:
        found, = objects(tmp_path / 'out' / name)
        assert found['position_m'] == pytest.approx(expected['position_m'], abs=1e-3)


def test_depth_unit_reaches_the_positions(tmp_path, bottle):
    folder = shutil.copytree(bottle, tmp_path / 'frame')
    depth = cv2.imread(str(folder / 'depth.png'), cv2.IMREAD_UNCHANGED)
    (folder / 'depth.png').unlink()
    np.save(folder / 'depth.npy', depth.astype(np.float64) / 10.0)
    command = ['reconstruct', str(folder), '--set', 'reconstructor=box', '--out']
    assert main([*command, str(tmp_path / 'out'), '--depth-unit', 'cm']) == 0
    expected = run('reconstruct', bottle, '--set', 'reconstructor=box', '--out', tmp_path / 'mm')
    assert expected.returncode == 0
    assert objects(tmp_path / 'out')[0]['position_m'] == pytest.approx(
        objects(tmp_path / 'mm')[0]['position_m'], abs=1e-3)


@pytest.mark.parametrize('name', ['nowhere.png', 'text.png'])
def test_bad_picture_is_told_before_models_load(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr('img2scene_ros.pipeline.Pipeline.__init__', None)
    (tmp_path / 'text.png').write_text('no picture')
    assert main(['reconstruct', str(tmp_path / name)]) == 1
    assert name in capsys.readouterr().err


@pytest.mark.parametrize('is_option', [False, True])
def test_bad_calibration_is_told_before_models_load(
        tmp_path, bottle, monkeypatch, capsys, is_option):
    def load(*_):
        raise AssertionError('models load')

    monkeypatch.setattr('img2scene_ros.pipeline.Pipeline.__init__', load)
    (tmp_path / 'k.txt').write_text('600 0 0\n0 600 0\n160 120 1\n')
    folder = shutil.copytree(bottle, tmp_path / 'frame')
    arguments = [str(folder), '--camera', str(tmp_path / 'k.txt')]
    if not is_option:
        (folder / 'camera.json').unlink()
        shutil.copy(tmp_path / 'k.txt', folder / 'cam_K.txt')
        arguments = [str(folder)]
    assert main(['reconstruct', *arguments]) == 1
    assert 'transposed' in capsys.readouterr().err


def test_place_that_cannot_be_written_is_one_sentence(tmp_path, bottle, capsys):
    (tmp_path / 'file').write_text('in the way')
    (tmp_path / 'loop').symlink_to(tmp_path / 'loop')
    for out in ('file/out', 'file', 'loop/out'):
        assert main(['reconstruct', str(bottle), '--reconstructor', 'box', '--detector',
                     'tabletop', '--out', str(tmp_path / out)]) == 1
        line, = capsys.readouterr().err.splitlines()
        assert str(tmp_path / out) in line
    assert (tmp_path / 'file').read_text() == 'in the way'


def test_picture_without_any_object_is_exported_all_the_same(tmp_path, bottle, capsys):
    frame = tmp_path / 'wall'
    shutil.copytree(bottle, frame)
    cv2.imwrite(str(frame / 'depth.png'), np.full((240, 320), 1000, np.uint16))
    assert main(['reconstruct', str(frame), '--detector', 'tabletop',
                 '--out', str(tmp_path / 'out')]) == 0
    assert '0 objects' in capsys.readouterr().out
    assert json.loads((tmp_path / 'out/objects.json').read_text())['objects'] == []


def bottle_photo(path: Path, **exif: float) -> Path:
    """Write the picture of a recorded frame as a photo, with EXIF values."""
    tags = Image.Exif()
    for name, value in exif.items():
        tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base[name]] = value
    Image.open(FRAMES / 'table_mustard_bottle/color.png').resize((320, 240)).save(path, exif=tags)
    return path


@pytest.fixture
def without_hub(tmp_path, monkeypatch):
    """Let nothing be downloaded, nor taken from a cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)


def test_photo_alone_becomes_a_scene(tmp_path, capsys, monkeypatch):
    """A detector of another package finds the bottle; the camera is that of the EXIF data."""
    monkeypatch.setattr('img2scene_ros.detection.auto.BACKEND', FindsTheBottle)
    photo = bottle_photo(tmp_path / 'photo.jpg', FocalLengthIn35mmFilm=41)
    assert main(['reconstruct', str(photo), '--out', str(tmp_path / 'out')]) == 0
    item, = json.loads((tmp_path / 'out/objects.json').read_text())['objects']
    assert item['reconstructor'] == 'voxel' and item['depth_source'] != 'sensor'
    for name in ('scene.glb', 'overlay.png', item['mesh']):
        assert (tmp_path / 'out' / name).stat().st_size > 0
    printed = capsys.readouterr().out
    assert 'EXIF (41 mm, 35 mm equivalent)' in printed
    for stage in ('read', 'detect', 'localize', 'reconstruct', 'export'):
        assert f'{stage} ' in printed
    # The bottle's real distance is that of the depth image, within what a class's size tells.
    depth = cv2.imread(str(FRAMES / 'table_mustard_bottle/depth.png'), cv2.IMREAD_UNCHANGED)
    mask = cv2.imread(str(FRAMES / 'table_mustard_bottle/mask.png'), cv2.IMREAD_UNCHANGED) > 0
    near = np.median(depth[mask & (depth > 0)]) / 1000
    focal = json.loads((FRAMES / 'table_mustard_bottle/camera.json').read_text())['K'][0]
    specified = 41 * 400 / 43.27 * 2  # of the photo, at the frame's size
    assert item['position_m'][2] == pytest.approx(near * specified / np.ravel(focal)[0], rel=0.35)


class FindsTheBottle:
    """Looks at the true mask instead of the picture."""

    from img2scene_ros.detection.auto import AutoDetector

    Options = AutoDetector.Options

    def __init__(self, options: object = None) -> None:
        self.options = options or self.Options()

    def detect(self, frame):
        """Return the bottle."""
        mask = cv2.imread(str(FRAMES / 'table_mustard_bottle/mask.png'), cv2.IMREAD_UNCHANGED)
        mask = cv2.resize(mask, frame.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        return [Detection('bottle', 0.9, bbox_of(mask), mask)]


def test_photo_in_which_nothing_is_found_says_what_to_do(tmp_path, capsys, without_hub):
    cv2.imwrite(str(tmp_path / 'grey.jpg'), np.full((200, 300, 3), 128, np.uint8))
    assert main(['reconstruct', str(tmp_path / 'grey.jpg'), '--out', str(tmp_path / 'out'),
                 '--set', 'coco.score_threshold=0.99']) == 0
    printed = capsys.readouterr().out
    for words in ('0 objects', 'no object was found', 'detr.checkpoint=', 'score_threshold',
                  'field of view 60 degrees, assumed', "detector: the bundled network 'coco'"):
        assert words in printed
    assert (tmp_path / 'out/scene.glb').is_file()


def test_help_options_lists_names_limits_and_defaults():
    listed = run('reconstruct', '--help-options').stdout
    assert 'tabletop.min_height = 0.005  [number from 0.001 to 0.2]' in listed
    assert 'reconstructor = voxel' in listed


def test_interruption_is_quiet_and_leaves_nothing(tmp_path, bottle, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('img2scene_ros.pipeline.Pipeline.run', interrupt)
    assert main(['reconstruct', str(bottle), '--out', str(tmp_path / 'out')]) == 130
    printed = capsys.readouterr()
    assert printed.err == '' and 'objects' not in printed.out
    assert not list(tmp_path.iterdir())


def test_narrow_terminal_shows_whole_names(tmp_path, capsys):
    from rich.console import Console

    item = {'id': 1, 'label': 'dining table', 'score': 0.9, 'position_m': [0.0, 0.1, 1.0],
            'size_m': [0.5, 0.6, 0.7], 'depth_source': 'plane+size_prior',
            'reconstructor': 'depth_shell', 'triangles': 12000, 'watertight': True}
    (tmp_path / 'objects.json').write_text(json.dumps({'objects': [item], 'timing_s': {}}))
    print_objects(Console(width=30, soft_wrap=True), tmp_path)
    printed = capsys.readouterr().out
    assert 'dining table' in printed and 'plane+size_prior' in printed
    assert 'scene.png' not in printed
