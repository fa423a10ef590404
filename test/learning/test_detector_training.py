# SPDX-License-Identifier: Apache-2.0
"""The detector learns boxes and names, resumes exactly, and is loaded as any other checkpoint."""

import errno
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from complaints import complaint
from safetensors.torch import load_file
from solids import solid_sample
from trainings import assert_command_trains_and_resumes
from trainings import assert_resumes_exactly
from trainings import log_of
from trainings import losses_of
from trainings import settings_of
from trainings import write_set

from img2scene_ros.camera import Camera
from img2scene_ros.detection import box_iou
from img2scene_ros.detection.detr import DetrDetector
from img2scene_ros.detection.detr import DetrOptions
from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.learning import loop
from img2scene_ros.learning.detector_config import DetectorAugmentationOptions
from img2scene_ros.learning.detector_config import DetectorTrainingOptions
from img2scene_ros.learning.detector_config import read_detector_config
from img2scene_ros.learning.detector_config import read_stages
from img2scene_ros.learning.detector_data import DetectorExamples
from img2scene_ros.learning.detector_data import Picture
from img2scene_ros.learning.detector_data import augment_picture
from img2scene_ros.learning.detector_data import normalized
from img2scene_ros.learning.detector_data import open_pictures
from img2scene_ros.learning.detector_data import picture_of
from img2scene_ros.learning.detector_data import picture_tensors
from img2scene_ros.learning.detector_model import dense_loss
from img2scene_ros.learning.detector_training import DetectorTask
from img2scene_ros.learning.detector_training import Pictures
from img2scene_ros.learning.loop import Run
from img2scene_ros.learning.loop import carry_out
from img2scene_ros.learning.samples import ObjectTruth
from img2scene_ros.learning.samples import SceneSample
from img2scene_ros.learning.samples import encode_crop
from img2scene_ros.learning.samples import encode_scene
from img2scene_ros.learning.training_config import TrainingConfig
from img2scene_ros.types import Frame

pytestmark = pytest.mark.usefixtures('one_thread')

ROOT = Path(__file__).resolve().parents[2]
LABELS = ['cup', 'dining table']
TINY = ('model.stem=8', 'model.stage_2=16', 'model.stage_3=32', 'model.stage_4=32',
        'model.layers=1', 'model.width=32', 'model.decoder_layers=2', 'model.queries=8',
        'model.denoising=4', 'sizes=96x64:1')
QUICK = (*TINY, 'steps=6', 'batch=4', 'sizes=64x32:0.5 96x64:0.5', 'log_every=1', 'save_every=2',
         'validate_every=3', 'validation_samples=4')
UNCHANGED = tuple(f'augmentation.{name}' for name in (
    'flip=0', 'zoom_in=1', 'zoom_out=1', 'stretch=1', 'tiles=0', 'photometric=0', 'jpeg=0'))


def config(*settings: str) -> TrainingConfig:
    return read_detector_config(None, [*QUICK, *settings])


def train_detector(
    config: TrainingConfig, pictures: Pictures, labels: Sequence[str], out: Path,
    validation: Pictures | None = None, resume: bool = False, minutes: float | None = None,
) -> Run:
    task = DetectorTask(config, pictures, labels, validation, minutes)
    return carry_out(task, out, resume, device=torch.device('cpu'))


def truth(number: int, label: str, box: tuple, full_box: tuple | None = None) -> ObjectTruth:
    return ObjectTruth(
        number, label, f'test/{label}/{number}', np.array(box, float),
        np.array(full_box or box, float), np.zeros(3), np.eye(3), np.ones(3), np.eye(4))


def drawn(number: int) -> SceneSample:
    """Draw a red disc, a 'cup', and a blue rectangle, a 'dining table', on grey."""
    random = np.random.default_rng(number)
    color = np.full((60, 90, 3), random.integers(90, 160), np.uint8)
    x, y, r = random.integers(14, 34), random.integers(14, 46), random.integers(7, 13)
    cv2.circle(color, (int(x), int(y)), int(r), (200, 40, 30), -1)
    left, top = random.integers(50, 62), random.integers(3, 28)
    right, bottom = left + random.integers(14, 26), top + random.integers(12, 28)
    color[top:bottom, left:right] = (30, 50, 190)
    return SceneSample(
        Frame(color, Camera.from_field_of_view(90, 60, 60.0), np.ones((60, 90), np.float32)),
        np.zeros((60, 90), np.uint8),
        [truth(1, 'cup', (x - r, y - r, x + r + 1, y + r + 1)),
         truth(2, 'dining table', (left, top, right, bottom))],
        np.array([0.0, -1.0, 0.0]), 1.0, str(number))


def write_scenes(folder: Path, scenes: list[SceneSample]) -> Path:
    return write_set(folder, [encode_scene(scene) for scene in scenes], kind='scenes')


@pytest.fixture(scope='module')
def scenes() -> list[SceneSample]:
    return [drawn(number) for number in range(12)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory, scenes) -> Path:
    return write_scenes(tmp_path_factory.mktemp('data') / 'scenes', scenes)


@pytest.fixture(scope='module')
def pictures(folder):
    return open_pictures(folder)[0]


def test_learns_a_handful_of_scenes_and_the_detector_finds_them(tmp_path, pictures, scenes):
    """What `detr` finds with the saved folder is compared with what was drawn."""
    chosen = read_detector_config(None, [
        *TINY, *UNCHANGED, 'steps=120', 'batch=6', 'learning_rate=0.004', 'warm_up=5',
        'average=0.9', 'log_every=20', 'validate_every=120', 'save_every=120'])
    few = [pictures[number] for number in range(6)]
    train_detector(chosen, few, LABELS, tmp_path, few)
    losses = losses_of(tmp_path)
    assert losses[120] < 0.4 * losses[20]
    scores = next(line for line in log_of(tmp_path) if 'ap50' in line)
    assert set(scores['per_class']) == set(LABELS)
    assert scores['ap50'] > 0.9
    assert {tensor.dtype for tensor in load_file(tmp_path / 'model.safetensors').values()
            if tensor.is_floating_point()} == {torch.float16}

    detector = DetrDetector(DetrOptions(
        checkpoint=str(tmp_path), device='cpu', score_threshold=0.4))
    assert {parameter.dtype for parameter in detector._model.parameters()} == {torch.float32}
    for scene in scenes[:6]:
        for factor in (1, 4):  # neither size is the network's
            color = cv2.resize(scene.frame.color, None, fx=factor, fy=factor)
            height, width = color.shape[:2]
            found = detector.detect(
                Frame(color, Camera.from_field_of_view(width, height, 60.0)))
            for truth_ in scene.objects:  # best first
                best = next(item for item in found if item.label == truth_.label)
                assert box_iou(best.bbox[None], factor * truth_.visible_box[None]) > 0.7
            assert {item.label for item in found} == set(LABELS)


def test_saved_folder_finds_what_the_average_finds(tmp_path, pictures, scenes):
    run = train_detector(config('steps=3', 'average=0.5'), pictures, LABELS, tmp_path)
    detector = DetrDetector(DetrOptions(
        checkpoint=str(tmp_path), device='cpu', score_threshold=0.0))
    color = cv2.resize(scenes[0].frame.color, (96, 64))  # the size of the last stage
    found = detector.detect(Frame(color, Camera.from_field_of_view(96, 64, 60.0)))
    with torch.inference_mode():
        outputs = run.average(normalized(torch.from_numpy(color)[None]))
    scores, best = outputs.logits[0].sigmoid().flatten().topk(8)
    center, size = outputs.pred_boxes[0, best // 2].split(2, dim=1)
    boxes = torch.cat([center - size / 2, center + size / 2], dim=1) * torch.tensor([96, 64] * 2)
    assert len(found) == 8
    np.testing.assert_allclose([item.score for item in found], scores, atol=2e-3)
    np.testing.assert_allclose([item.bbox for item in found][0], boxes[0].clip(min=0), atol=0.3)
    assert [found[0].label] == [LABELS[best[0] % 2]]


def test_training_starts_from_a_trained_detector(tmp_path, pictures):
    train_detector(config('steps=2', 'average=0'), pictures, LABELS, tmp_path / 'first')
    start = f"start_from={tmp_path / 'first'}"
    run = train_detector(
        config(start, 'steps=1', 'learning_rate=0'), pictures, LABELS, tmp_path / 'second')
    first = load_file(tmp_path / 'first' / 'model.safetensors')
    weights = dict(run.network.named_parameters())
    shared = first.keys() & weights.keys()
    assert len(shared) > 100
    for name in shared:
        assert torch.equal(weights[name], first[name].float()), 'nothing is learned at a rate of 0'
    for settings, labels in (((start, 'model.decoder_layers=3'), LABELS),
                             ((start,), ('cup', 'bed'))):
        with pytest.raises(InputError, match='another shape or other classes'):
            train_detector(config(*settings), pictures, labels, tmp_path / 'third')
    with pytest.raises(InputError, match='weights of the checkpoint .*nowhere'):
        train_detector(config(f"start_from={tmp_path / 'nowhere'}"), pictures, LABELS,
                       tmp_path / 'third')


def test_resumed_run_ends_as_an_uninterrupted_one(tmp_path, pictures):
    assert_resumes_exactly(lambda out, resume=False: train_detector(
        config(), pictures, LABELS, out, pictures, resume), tmp_path)


def test_time_given_is_that_of_all_sessions(tmp_path, pictures, monkeypatch):
    clock = iter(np.arange(0.0, 1e6, 10.0))  # ten seconds from one look to the next
    monkeypatch.setattr(loop, 'monotonic', lambda: float(next(clock)))
    run = train_detector(config(), pictures, LABELS, tmp_path, minutes=0.5)
    assert (run.step, run.seconds) == (3, 30.0)
    run = train_detector(config(), pictures, LABELS, tmp_path, minutes=1.0, resume=True)
    assert (run.step, run.seconds) == (6, 60.0)
    rates = [line['learning_rate'] for line in log_of(tmp_path)]
    assert rates[2] < rates[1]  # it fell with the clock in the first session


@pytest.fixture
def batches(monkeypatch) -> list[tuple]:
    """Return what trainings look at: pictures and targets, batch by batch."""
    seen, step = [], DetectorTask.losses

    def remember(task, model, batch):
        seen.append(batch)
        return step(task, model, batch)

    monkeypatch.setattr(DetectorTask, 'losses', remember)
    return seen


def test_close_ups_end_with_the_last_size(tmp_path, pictures, batches):
    """There they show what cameras show: two objects, not some ten."""
    train_detector(config('sizes=256x192:0.5 96x64:0.5', 'augmentation.tiles=1'), pictures, LABELS,
                   tmp_path)
    counts = [np.mean([len(target['boxes']) for target in targets]) for _, targets in batches]
    assert min(counts[:3]) > 5 and max(counts[3:]) <= 2


def test_sizes_follow_one_another(tmp_path, pictures, batches):
    train_detector(config(), pictures, LABELS, tmp_path)
    sizes = [tuple(images.shape) for images, _ in batches]
    assert sizes == 3 * [(4, 32, 64, 3)] + 3 * [(4, 64, 96, 3)]
    values = json.loads((tmp_path / 'preprocessor_config.json').read_text())
    assert values['size'] == {'height': 64, 'width': 96}


@pytest.mark.parametrize('count', [1, 4])
def test_boxes_move_with_the_picture(count):
    """Bright rectangles are where their boxes are, however the picture is put together."""
    color = np.zeros((120, 160, 3), np.uint8)
    color[30:60, 40:100] = 255
    color[80:100, 10:30] = 255
    picture = Picture(color, np.array([[40, 30, 100, 60], [10, 80, 30, 100.0]]),
                      np.array([0, 1]), np.zeros(2, bool))
    options = DetectorAugmentationOptions(zoom_in=1.5, zoom_out=1.5, photometric=0.0, jpeg=0.0)
    mirrored, found = 0, 0
    for seed in range(40):
        framed = augment_picture([picture] * count, np.random.default_rng(seed), options, 192, 128)
        assert framed.color.shape == (128, 192, 3)
        bright = (framed.color > 250).all(axis=-1)
        for left, top, right, bottom in framed.boxes:
            if min(right - left, bottom - top) < 8:
                continue
            inside = bright[int(top) + 3:int(bottom) - 2, int(left) + 3:int(right) - 2]
            assert inside.all()
            found += 1
        if count == 1:
            # Nothing else is bright.
            for left, top, right, bottom in framed.boxes:
                bright[max(0, int(top) - 1):int(bottom) + 2,
                       max(0, int(left) - 1):int(right) + 2] = False
            assert not bright.any()
        if count == 1 and len(framed.boxes) == 2:
            mirrored += framed.boxes[0, 0] < framed.boxes[1, 0]
    assert found > 60
    assert count > 1 or 5 < mirrored < 35


def test_cut_and_hidden_objects_are_ignored():
    options = DetectorAugmentationOptions(
        flip=0.0, zoom_in=1.0, zoom_out=1.0, stretch=1.0, photometric=0.0, jpeg=0.0)
    hidden = truth(1, 'cup', (10, 10, 20, 20), (10, 10, 40, 40))
    clear = truth(2, 'cup', (50, 10, 80, 40))
    unknown = truth(3, 'sofa', (10, 50, 30, 58))
    picture = picture_of(np.zeros((60, 90, 3), np.uint8), [hidden, clear, unknown], LABELS, 0.2)
    assert picture.ignored.tolist() == [True, False]
    tiny = Picture(picture.color, np.array([[0, 0, 3, 30], [20, 0, 50, 30.0]]), np.zeros(2, int),
                   np.zeros(2, bool))
    assert augment_picture([tiny], np.random.default_rng(0), options, 96, 64).ignored.tolist() == [
        True, False]
    # Zoomed in, an object loses most of its box sooner or later.
    options = DetectorAugmentationOptions(zoom_in=4.0, photometric=0.0)
    cut = [augment_picture([picture], np.random.default_rng(seed), options, 96, 64)
           for seed in range(60)]
    assert any(len(item.boxes) == 1 for item in cut)
    for item in cut:
        sides = item.boxes[:, 2:] - item.boxes[:, :2]
        assert (item.boxes >= 0).all() and (item.boxes <= (96, 64, 96, 64)).all()
        assert (sides > 0).all()
    alone = Picture(picture.color, picture.boxes[1:], picture.classes[1:], picture.ignored[1:])
    cut = [augment_picture([alone], np.random.default_rng(seed), options, 96, 64)
           for seed in range(60)]
    assert any(item.ignored.any() and (item.boxes[0, 2:] - item.boxes[0, :2]).min() > 6
               for item in cut)  # too little of it is left, though it is not small
    target = picture_tensors(picture)[1]
    assert target['class_labels'].tolist() == [0]
    np.testing.assert_allclose(
        target['boxes'], [[65 / 90, 25 / 60, 30 / 90, 30 / 60]], rtol=1e-5)
    np.testing.assert_allclose(
        target['ignored'], [[15 / 90, 15 / 60, 10 / 90, 10 / 60]], rtol=1e-5)


def test_examples_depend_on_their_position_alone(pictures):
    def examples() -> DetectorExamples:
        return DetectorExamples(
            pictures, LABELS, DetectorAugmentationOptions(), 0.2, 7, 96, 64, 0.5)

    forward, backward = examples(), examples()
    first = [forward[position] for position in (0, 13, 30, 31)]
    second = [backward[position] for position in (31, 30, 13, 0)][::-1]
    for (one, one_target), (other, other_target) in zip(first, second):
        assert torch.equal(one, other)
        assert all(torch.equal(one_target[name], other_target[name]) for name in one_target)
    assert not torch.equal(first[0][0], first[1][0])


TARGET = {'class_labels': torch.tensor([1]), 'boxes': torch.tensor([[0.5, 0.5, 0.5, 0.5]]),
          'ignored': torch.zeros((0, 4))}
EMPTY = {'class_labels': torch.zeros(0, dtype=torch.int64), 'boxes': torch.zeros((0, 4)),
         'ignored': torch.zeros((0, 4))}


def proposals(right: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and boxes of a 64x64 picture: 64, 16 and 4 cells; some may fit TARGET."""
    logits = torch.full((1, 84, 2), -8.0)
    boxes = torch.tensor([0.05, 0.05, 0.01, 0.01]).repeat(1, 84, 1)
    if right:
        inside = [64 + 5, 64 + 6, 64 + 9, 64 + 10]  # the middle of the 4x4 map
        logits[0, inside, 1] = 8.0
        boxes[0, inside] = TARGET['boxes'][0]
    return logits, boxes


def test_dense_loss_is_least_where_proposals_are_right():
    right = dense_loss(*proposals(True), [TARGET], 64, 64, 4)
    assert float(right) < 0.01
    logits, boxes = proposals(True)
    wrong_name = dense_loss(logits.flip(2), boxes, [TARGET], 64, 64, 4)
    assert float(wrong_name) > 1
    boxes = (boxes + torch.tensor([0.1, 0.0, 0.0, -0.1])).requires_grad_()
    dense_loss(logits, boxes, [TARGET], 64, 64, 4).backward()
    # Downhill is to the left, and taller.
    assert float(boxes.grad[0, 69, 0]) > 0 > float(boxes.grad[0, 69, 3])


def test_dense_loss_leaves_what_is_ignored_alone():
    logits, boxes = proposals(True)
    logits[0, 0, 0] = 8.0  # the first cell is sure of something
    nothing_there = dense_loss(logits, boxes, [TARGET], 64, 64, 4)
    hidden = {**TARGET, 'ignored': torch.tensor([[0.06, 0.06, 0.1, 0.1]])}
    assert float(nothing_there) > 1
    assert float(dense_loss(logits, boxes, [hidden], 64, 64, 4)) < 0.01


def test_dense_loss_of_pictures_without_objects_is_finite():
    logits, boxes = proposals(False)
    logits.requires_grad_()
    loss = dense_loss(logits, boxes, [EMPTY], 64, 64, 4)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


def test_dense_loss_knows_how_many_objects_each_picture_has():
    logits, boxes = proposals(True)
    quiet = torch.full_like(logits, -8.0)
    both = dense_loss(
        torch.cat([logits, quiet]), boxes.repeat(2, 1, 1), [TARGET, EMPTY], 64, 64, 4)
    assert float(both) < 0.01


def test_pictures_without_objects_can_be_learned_from(tmp_path):
    empty = (np.zeros((60, 90, 3), np.uint8), [])
    run = train_detector(config('steps=2'), [empty] * 4, LABELS, tmp_path)
    assert run.step == 2 and np.isfinite(list(losses_of(tmp_path).values())).all()


def test_learning_rate_rises_stays_and_falls_to_zero():
    options = DetectorTrainingOptions(learning_rate=0.01, warm_up=100, hold=0.5)
    assert 0 < options.rate(0, 0.0) < 0.0002
    assert options.rate(500, 0.1) == options.rate(2000, 0.5) == 0.01
    assert options.rate(3000, 0.75) == pytest.approx(0.005)
    assert options.rate(4000, 1.0) == pytest.approx(0.0, abs=1e-9)


def test_run_of_other_options_or_data_is_not_resumed(tmp_path, pictures):
    train_detector(config(), pictures, LABELS, tmp_path, minutes=0)
    for settings, some, labels, word in (
            (('model.queries=9',), pictures, LABELS, 'model.queries'),
            ((), [pictures[0], pictures[1]], LABELS, 'number of pictures was 12 and is 2'),
            ((), pictures, ['cup', 'desk'], 'class names')):
        with pytest.raises(InputError, match=word):
            train_detector(config(*settings), some, labels, tmp_path, resume=True)


def test_full_disk_leaves_the_checkpoint_before(tmp_path, pictures, monkeypatch):
    train_detector(config(), pictures, LABELS, tmp_path, minutes=0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    del before['log.jsonl']

    def write_half(*arguments, **_):
        Path(arguments[1], 'model.safetensors').write_bytes(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('transformers.PreTrainedModel.save_pretrained', write_half)
    with pytest.raises(InputError, match='No space left on device'):
        train_detector(config(), pictures, LABELS, tmp_path, resume=True)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.mark.parametrize('settings, words', [
    (('model.width=50',), ['model.width', 'multiple of 32']),
    (('sizes=320x240:1',), ['320x240', 'multiples of 32']),
    (('sizes=320x256',), ['WIDTHxHEIGHT:SHARE']),
    (('sizes=320x256:0.5',), ['add up to 1']),
    (('sizes=256x192:1.5 320x256:-0.5',), ['add up to 1']),
    (('sizes= ',), ['sizes']),
])
def test_wrong_setting_is_one_sentence(settings, words):
    with pytest.raises(OptionError) as caught:
        read_detector_config(None, settings)
    for word in words:
        assert word in str(caught.value)


def test_sizes_are_read_as_they_are_written():
    stages = read_stages('192x160:0.1 256x192:0.2 320x256:0.7')
    assert [(stage.width, stage.height) for stage in stages] == [
        (192, 160), (256, 192), (320, 256)]
    assert [stage.end for stage in stages] == pytest.approx([0.1, 0.3, 1.0])
    assert stages[-1].end == 1.0


def test_config_that_is_delivered_is_the_default():
    assert read_detector_config(ROOT / 'config/train/detector.yaml').values() | {
        'save_every': 0, 'validate_every': 0} == read_detector_config(None).values() | {
        'save_every': 0, 'validate_every': 0}


def test_command_line_trains_and_resumes(tmp_path, folder, capsys):
    arguments = ['train-detector', '--data', str(folder), '--validation', str(folder),
                 '--out', str(tmp_path / 'run'), *settings_of(QUICK)]
    assert_command_trains_and_resumes(arguments, '(1 steps', 'AP50 0.', capsys)
    names = json.loads((tmp_path / 'run' / 'config.json').read_text())['id2label']
    assert names == {'0': 'cup', '1': 'dining table'}


def test_data_that_are_no_scenes_are_one_sentence(tmp_path, folder, capsys):
    crops = write_set(tmp_path / 'crops', [encode_crop(solid_sample(0))])
    blank = drawn(0)
    blank.objects.clear()
    empty = write_scenes(tmp_path / 'empty', [blank])
    broken = write_scenes(tmp_path / 'broken', [drawn(0)])
    (broken / 'a.npz').write_bytes(b'nothing')
    for data, word in ((crops, '--kind scenes'), (empty, 'no objects'), (broken, 'a.npz'),
                       (tmp_path / 'nowhere', 'nowhere')):
        assert word in complaint(
            capsys, 'train-detector', '--data', data, '--out', tmp_path / 'run')
    assert not (tmp_path / 'run').exists()
