# SPDX-License-Identifier: Apache-2.0
"""
The `detr` detector on tiny checkpoints of every family, saved and loaded as real ones are.

Their weights are random, so what they find means nothing; but what `detr` does with it must agree
with transformers used by hand, or with a closed form where the weights are chosen.
"""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from checkpoints import LABELS
from checkpoints import NAME
from checkpoints import RF_DETR_PROCESSOR
from checkpoints import put_into_cache
from checkpoints import save

from img2scene_ros.camera import Camera
from img2scene_ros.detection import bbox_of
from img2scene_ros.detection import detr
from img2scene_ros.detection.detr import DetrDetector
from img2scene_ros.detection.detr import DetrOptions
from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.errors import OptionError
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame

FAMILIES = ['detr', 'rt_detr_v2', 'd_fine', 'rf_detr', 'rf_detr_seg', 'maskformer']


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """Run tiny models on one thread: more only wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> Callable[[str], Path]:
    """Return a function that gives the checkpoint of a family, written once."""
    return cache(lambda family: save(family, tmp_path_factory.mktemp(family)))


@pytest.fixture(scope='module')
def frame(recorded) -> Frame:
    return recorded('ycb_1')


def detector(folder: Path | str, **named) -> DetrDetector:
    return DetrDetector(DetrOptions(checkpoint=str(folder), **{'score_threshold': 0.0, **named}))


def changed(found: DetrDetector, **named) -> DetrDetector:
    """Set options while the detector runs."""
    found.options = dataclasses.replace(found.options, **named)
    return found


# What holds for every family.

@pytest.mark.parametrize('family', FAMILIES)
def test_finds_objects_inside_the_picture_best_first(family, checkpoint, frame):
    found = detector(checkpoint(family), score_threshold=0.02).detect(frame)
    assert found
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] <= 1 and scores[-1] > 0.02
    for one in found:
        left, top, right, bottom = one.bbox
        assert 0 <= left and left + 1 <= right <= 640 and 0 <= top and top + 1 <= bottom <= 480
        assert one.label in LABELS.values()
        assert type(one.label) is str and type(one.score) is float


@pytest.mark.parametrize('family', FAMILIES)
def test_looks_at_the_picture_and_only_at_the_picture(family, checkpoint, frame, recorded):
    found = detector(checkpoint(family))
    scores = [one.score for one in found.detect(frame)]
    blind = Frame(frame.color, frame.camera)
    assert [one.score for one in found.detect(blind)] == scores
    assert [one.score for one in found.detect(recorded('ycb_2'))] != scores


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_half_precision_changes_scores_only_a_little(family, dtype, checkpoint, frame):
    full = detector(checkpoint(family)).detect(frame)
    half = detector(checkpoint(family), dtype=dtype).detect(frame)
    assert len(half) == len(full)
    difference = np.subtract([one.score for one in half], [one.score for one in full])
    assert 0 < np.abs(difference).max()
    assert np.median(np.abs(difference)) < 0.05


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('family', FAMILIES)
def test_runs_in_half_precision_on_the_gpu_when_there_is_one(family, checkpoint, frame):
    cpu = detector(checkpoint(family), device='cpu').detect(frame)
    gpu = detector(checkpoint(family)).detect(frame)
    difference = np.subtract([one.score for one in gpu], [one.score for one in cpu])
    assert 0 < np.median(np.abs(difference)) < 0.05


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('shape', [(4, 5), (720, 1280)])
def test_takes_pictures_of_any_size(family, shape, checkpoint, recorded):
    height, width = shape
    color = cv2.resize(recorded('ycb_1').color, (width, height))
    frame = Frame(color, Camera.from_field_of_view(width, height, 60))
    for one in detector(checkpoint(family)).detect(frame):
        assert (one.bbox[2:] <= (width, height)).all()
        assert one.mask is None or one.mask.shape == shape


@pytest.mark.parametrize('family', FAMILIES)
def test_takes_pictures_that_are_views_of_other_memory(family, checkpoint, frame):
    found = detector(checkpoint(family))
    expected = [one.score for one in found.detect(frame)]
    view = np.ascontiguousarray(frame.color[..., ::-1])[..., ::-1]
    view.flags.writeable = False
    assert [one.score for one in found.detect(Frame(view, frame.camera))] == expected


# The same as transformers used by hand.

def by_hand(folder: Path, auto: type, frame: Frame) -> tuple[object, object]:
    """Return the outputs of the model and its image processor."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend='pil')
    model = auto.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**processor(images=frame.color, return_tensors='pt')), processor


def assert_same(found: list[Detection], scores: np.ndarray, labels: np.ndarray, boxes: np.ndarray):
    """Compare with unsorted results whose boxes may leave the picture."""
    boxes = np.clip(boxes, 0, (640, 480, 640, 480))
    keep = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= 1
    order = [index for index in np.argsort(-scores, kind='stable') if keep[index]]
    assert [one.label for one in found] == [LABELS[labels[index]] for index in order]
    np.testing.assert_allclose([one.score for one in found], scores[order], atol=1e-5)
    np.testing.assert_allclose([one.bbox for one in found], boxes[order], atol=1e-2)


@pytest.mark.parametrize('family', ['detr', 'rt_detr_v2', 'd_fine'])
def test_agrees_with_the_model_and_its_processor(family, checkpoint, frame):
    folder = checkpoint(family)
    outputs, processor = by_hand(folder, transformers.AutoModelForObjectDetection, frame)
    expected = processor.post_process_object_detection(
        outputs, threshold=0.1, target_sizes=[(480, 640)])[0]
    found = detector(folder, score_threshold=0.1).detect(frame)
    assert len(found) > 3
    assert_same(found, *(expected[name].numpy() for name in ('scores', 'labels', 'boxes')))


def rf_detr_by_hand(folder: Path, auto: type, frame: Frame) -> object:
    """Prepare the picture with OpenCV, as the model's authors describe it, and run the model."""
    picture = cv2.resize(frame.color.astype(np.float32) / 255, (96, 96))
    picture = (picture - RF_DETR_PROCESSOR['image_mean']) / RF_DETR_PROCESSOR['image_std']
    values = torch.tensor(picture.transpose(2, 0, 1)[None], dtype=torch.float32)
    with torch.no_grad():
        return auto.from_pretrained(folder).eval()(pixel_values=values)


def best_of_rf_detr(outputs: object) -> list[tuple[float, int, int]]:
    """Return (score, query, class) of the as many best pairs as there are queries."""
    scores = 1 / (1 + np.exp(-outputs.logits[0].numpy().astype(float)))
    pairs = [(scores[query, label], query, label) for query, label in np.ndindex(scores.shape)]
    return sorted(pairs, reverse=True)[:len(scores)]


def test_agrees_with_rf_detr_by_hand(checkpoint, frame):
    folder = checkpoint('rf_detr')
    outputs = rf_detr_by_hand(folder, transformers.AutoModelForObjectDetection, frame)
    best = best_of_rf_detr(outputs)
    boxes = []
    for _, query, _ in best:
        x, y, width, height = outputs.pred_boxes[0, query].numpy() * (640, 480, 640, 480)
        boxes.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    scores, _, labels = map(np.array, zip(*best))
    assert_same(detector(folder).detect(frame), scores, labels, np.array(boxes))


def test_the_processor_that_early_rf_detr_checkpoints_name_makes_no_difference(
        checkpoint, frame, tmp_path):
    folder = shutil.copytree(checkpoint('rf_detr'), tmp_path / 'early')
    values = {**RF_DETR_PROCESSOR, 'image_processor_type': 'DetrImageProcessor'}
    (folder / 'preprocessor_config.json').write_text(json.dumps(values))
    early = detector(folder).detect(frame)
    usual = detector(checkpoint('rf_detr')).detect(frame)
    assert [one.score for one in early] == [one.score for one in usual]


def test_rf_detr_seg_masks_are_those_of_the_model_inside_the_box(checkpoint, frame):
    folder = checkpoint('rf_detr_seg')
    outputs = rf_detr_by_hand(folder, transformers.AutoModelForInstanceSegmentation, frame)
    found = detector(folder).detect(frame)
    masked = 0
    for one in found:
        query = next(
            query for score, query, label in best_of_rf_detr(outputs)
            if abs(score - one.score) < 1e-5 and LABELS[label] == one.label)
        logits = torch.nn.functional.interpolate(
            outputs.pred_masks[None, 0, query, None], (480, 640), mode='bilinear')[0, 0].numpy()
        left, top = np.floor(one.bbox[:2]).astype(int)
        right, bottom = np.ceil(one.bbox[2:]).astype(int)
        expected = logits[top:bottom, left:right] > 0
        if one.mask is None:
            assert not expected.any()
            continue
        masked += 1
        assert one.mask.shape == (480, 640) and one.mask.dtype == bool
        assert one.mask.sum() == one.mask[top:bottom, left:right].sum() > 0
        assert (one.mask[top:bottom, left:right] != expected).mean() < 1e-3
    assert masked > 3


def test_maskformer_boxes_are_those_of_its_masks(checkpoint, frame):
    folder = checkpoint('maskformer')
    outputs, processor = by_hand(folder, transformers.AutoModelForInstanceSegmentation, frame)
    expected = processor.post_process_instance_segmentation(
        outputs, threshold=0.1, target_sizes=[(480, 640)], return_binary_maps=True)[0]
    found = detector(folder, score_threshold=0.1).detect(frame)
    assert len(found) > 3
    segments = zip(expected['segments_info'], expected['segmentation'].numpy() > 0)
    for one, (segment, mask) in zip(found, sorted(segments, key=lambda pair: -pair[0]['score'])):
        assert (one.label, one.score) == (LABELS[segment['label_id']], segment['score'])
        np.testing.assert_array_equal(one.mask, mask)
        np.testing.assert_array_equal(one.bbox, bbox_of(mask))


def test_maskformer_may_find_nothing(checkpoint, frame):
    assert detector(checkpoint('maskformer'), score_threshold=1.0).detect(frame) == []


# Closed forms: a DETR whose heads answer the same whatever they see.

@pytest.fixture
def sure(tmp_path) -> Callable[..., DetrDetector]:
    """Return a function that makes a DETR see one box, as fractions of the picture, everywhere."""
    def make(x: float, y: float, width: float, height: float, **named) -> DetrDetector:
        def change(model: transformers.PreTrainedModel) -> None:
            head = model.bbox_predictor.layers[-1]
            head.weight.data.fill_(0)
            head.bias.data = torch.logit(torch.tensor([x, y, width, height]))
            model.class_labels_classifier.weight.data.fill_(0)
            # Bowl 0.7, mug 0.1, nothing 0.2.
            model.class_labels_classifier.bias.data = torch.log(
                torch.tensor([0.1, 0.7, 1e-9, 1e-9, 0.2]))
        return detector(save('detr', tmp_path / 'sure', change), **named)
    return make


def test_gives_the_box_in_pixels_with_its_label_and_score(sure, frame):
    found = sure(0.5, 0.25, 0.1, 0.2).detect(frame)
    assert len(found) == 20
    for one in found:
        assert one.label == 'bowl'
        assert one.score == pytest.approx(0.7)
        np.testing.assert_allclose(one.bbox, (288, 72, 352, 168), atol=1e-3)
        assert one.mask is None


def test_cuts_boxes_at_the_border_of_the_picture(sure, frame):
    for one in sure(0.02, 0.9, 0.2, 0.4).detect(frame):
        np.testing.assert_allclose(one.bbox, (0, 336, 76.8, 480), atol=1e-3)


@pytest.mark.parametrize('box', [(0.5, 0.5, 0.0005, 0.5), (0.5, 0.5, 0.5, 0.0005)])
def test_drops_boxes_thinner_than_a_pixel(box, sure, frame):
    assert sure(*box).detect(frame) == []


def test_the_score_threshold_may_change_while_running(sure, frame):
    found = sure(0.5, 0.5, 0.5, 0.5, score_threshold=0.69)
    assert len(found.detect(frame)) == 20
    assert changed(found, score_threshold=0.71).detect(frame) == []


def test_drops_all_but_one_of_boxes_that_are_the_same(sure, frame):
    found = sure(0.5, 0.5, 0.5, 0.5, nms_iou=0.9)
    assert len(found.detect(frame)) == 1


# Options.

def test_keeps_the_labels_that_are_asked_for(checkpoint, frame):
    found = detector(checkpoint('rt_detr_v2'))
    everything = found.detect(frame)
    some = changed(found, labels=('mug', 'can')).detect(frame)
    expected = [one for one in everything if one.label in ('mug', 'can')]
    assert 0 < len(some) < len(everything)
    assert [(one.label, one.score) for one in some] == [
        (one.label, one.score) for one in expected]


def test_refuses_a_label_that_the_checkpoint_does_not_know(checkpoint):
    with pytest.raises(OptionError, match="'cat'.*bowl, box, can, mug"):
        detector(checkpoint('detr'), labels=('mug', 'cat'))
    found = detector(checkpoint('detr'), labels=('mug',))
    with pytest.raises(OptionError, match="'dog'"):
        changed(found, labels=('dog',))
    assert found.options.labels == ('mug',)


def test_keeps_the_best_when_there_are_too_many(checkpoint, frame):
    found = detector(checkpoint('d_fine'))
    everything = found.detect(frame)
    best = changed(found, max_detections=3).detect(frame)
    assert [one.score for one in best] == [one.score for one in everything[:3]]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(0, width) * max(0, height)
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def test_keeps_one_of_boxes_that_overlap(checkpoint, frame):
    found = detector(checkpoint('rt_detr_v2'))
    everything = found.detect(frame)
    kept = changed(found, nms_iou=0.3).detect(frame)
    assert 1 < len(kept) < len(everything)
    scores = [one.score for one in kept]
    for one in everything:
        better = [other for other in kept if other.score > one.score]
        overlaps = any(iou(one.bbox, other.bbox) > 0.3 for other in better)
        assert overlaps == (one.score not in scores)


@pytest.mark.parametrize('name', ['cuda', 'cuda:3'])
def test_refuses_a_gpu_that_is_not_there(name, checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    with pytest.raises(OptionError, match=f"'device' is '{name}'.*0 CUDA devices"):
        detector(checkpoint('detr'), device=name)


def test_refuses_a_device_that_does_not_exist(checkpoint):
    with pytest.raises(OptionError, match="'device' is 'toaster'"):
        detector(checkpoint('detr'), device='toaster')


def test_only_what_needs_no_other_model_changes_while_running():
    declared = dataclasses.fields(DetrOptions)
    fixed = {field.name for field in declared if field.metadata['read_only']}
    assert fixed == {'checkpoint', 'revision', 'device', 'dtype'}


# Checkpoints that cannot be used: one sentence each.

@pytest.fixture
def damaged(checkpoint, tmp_path) -> Path:
    """Return a copy of a checkpoint that a test may damage."""
    return shutil.copytree(checkpoint('detr'), tmp_path / 'damaged')


def rewrite_config(folder: Path, **values) -> None:
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_reads_checkpoints_saved_in_half_precision(checkpoint, frame, tmp_path):
    folder = save('detr', tmp_path / 'half', lambda model: model.half())
    half = detector(folder).detect(frame)
    full = detector(checkpoint('detr')).detect(frame)
    np.testing.assert_allclose(
        [one.score for one in half], [one.score for one in full], atol=0.01)


def test_refuses_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match=f'{tmp_path.name}.*config.json'):
        detector(tmp_path)


@pytest.mark.parametrize(
    'text', ['{"model_type": "detr"', '{"model_type": "not_a_model"}', '{}'])
def test_refuses_a_config_that_cannot_be_read(text, damaged):
    (damaged / 'config.json').write_text(text)
    with pytest.raises(InputError, match='config.json of the checkpoint .*damaged'):
        detector(damaged)


def test_refuses_a_checkpoint_without_weights(damaged):
    (damaged / 'model.safetensors').unlink()
    with pytest.raises(InputError, match='weights of the checkpoint .*damaged'):
        detector(damaged)


def test_refuses_weights_that_are_cut_off(damaged):
    path = damaged / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InputError, match='weights of the checkpoint .*damaged'):
        detector(damaged)


def test_refuses_weights_of_another_size(damaged):
    rewrite_config(damaged, d_model=32)
    with pytest.raises(InputError, match='weights of the checkpoint .*damaged'):
        detector(damaged)


def test_warns_of_weights_that_are_missing(damaged, caplog):
    rewrite_config(damaged, decoder_layers=2)
    detector(damaged)
    assert 'damaged' in caplog.text and 'expect nonsense' in caplog.text


def test_a_whole_checkpoint_gives_no_warning(checkpoint, caplog):
    for family in FAMILIES:
        detector(checkpoint(family))
    assert caplog.text == ''


@pytest.mark.parametrize('family', ['detr', 'rf_detr'])
def test_refuses_a_checkpoint_without_its_image_processor(family, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint(family), tmp_path / 'damaged')
    (folder / 'preprocessor_config.json').write_text('{"size": ')
    with pytest.raises(InputError, match='preprocessor_config.json of the checkpoint .*damaged'):
        detector(folder)
    (folder / 'preprocessor_config.json').unlink()
    with pytest.raises(InputError, match='damaged.*holds no preprocessor_config.json'):
        detector(folder)


def test_says_when_the_model_cannot_take_the_size_that_its_processor_makes(
        checkpoint, frame, tmp_path):
    folder = shutil.copytree(checkpoint('rt_detr_v2'), tmp_path / 'odd')
    odd = transformers.RTDetrImageProcessorPil(size={'height': 100, 'width': 150})
    odd.save_pretrained(folder)
    found = detector(folder)
    with pytest.raises(InputError, match='odd.*150x100.*preprocessor_config.json'):
        found.detect(frame)


def test_refuses_a_checkpoint_for_another_task(tmp_path):
    model = transformers.ViTForImageClassification(transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16))
    model.save_pretrained(tmp_path)
    transformers.ViTImageProcessorPil().save_pretrained(tmp_path)
    with pytest.raises(InputError, match='ViTForImageClassification.*neither an object detector'):
        detector(tmp_path)


@pytest.mark.parametrize('architecture', ['DetrModel', 'DetrForSegmentation'])
def test_refuses_a_detector_without_its_head(architecture, damaged):
    rewrite_config(damaged, architectures=[architecture])
    with pytest.raises(InputError, match=f'{architecture}.*neither an object detector'):
        detector(damaged)


def test_a_config_that_names_no_class_means_the_usual_one(damaged, frame):
    rewrite_config(damaged, architectures=None)
    assert detector(damaged).detect(frame)


def test_says_what_to_do_about_a_checkpoint_that_needs_timm(damaged, monkeypatch):
    # As facebook/detr-resnet-50 is without its revision no_timm.
    rewrite_config(damaged, use_timm_backbone=True, backbone='resnet50', backbone_config=None)
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(MissingDependencyError, match="pip install timm.*'revision' to 'no_timm'"):
        detector(damaged)


@pytest.mark.parametrize('name', ['/no/such/folder', './models/mine', 'a/b/c'])
def test_refuses_what_is_neither_a_folder_nor_a_name(name):
    with pytest.raises(InputError, match=f"'{name}' is neither a folder"):
        detector(name)


def test_names_the_packages_that_are_missing(monkeypatch):
    for name in ('torch', 'transformers'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match='pip install torch transformers`.*tabletop'):
        DetrDetector()


# The Hub: the cache first, the network only for what is not there.

@pytest.fixture
def attempts(tmp_path, monkeypatch) -> list[str]:
    """Use an empty cache, cut the network, and return the hosts that were asked for."""
    asked = []

    def refuse(host, *_, **__):
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')

    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    for name in ('HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'all_proxy'):
        monkeypatch.delenv(name, raising=False)
    return asked


def test_a_cached_checkpoint_needs_no_network(checkpoint, frame, tmp_path, attempts):
    put_into_cache(checkpoint('rf_detr_seg'), tmp_path / 'hub')
    assert detector(NAME).detect(frame)
    assert attempts == []


def test_a_cached_revision_is_used_by_its_name_only(checkpoint, frame, tmp_path, attempts):
    put_into_cache(checkpoint('detr'), tmp_path / 'hub', 'no_timm')
    assert detector(NAME, revision='no_timm').detect(frame)
    assert attempts == []
    with pytest.raises(MissingDependencyError, match="revision 'main'"):
        detector(NAME)


def test_a_missing_checkpoint_names_the_ways_out_without_many_retries(attempts):
    with pytest.raises(MissingDependencyError) as caught:
        detector(NAME, revision='no_timm')
    message = str(caught.value)
    assert '\n' not in message
    for words in (NAME, 'network', f'hf download {NAME} --revision no_timm', 'local folder',
                  'tabletop'):
        assert words in message
    assert 1 <= len(attempts) <= 2


def test_an_interrupted_download_counts_as_missing(checkpoint, tmp_path, attempts):
    snapshot = put_into_cache(checkpoint('detr'), tmp_path / 'hub')
    (snapshot / 'model.safetensors').unlink()
    with pytest.raises(MissingDependencyError, match='hf download'):
        detector(NAME)
    assert attempts


def test_a_machine_that_is_told_to_stay_offline_does(attempts, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(MissingDependencyError, match='OfflineModeIsEnabled.*hf download'):
        detector(NAME)
    assert attempts == []


# A process of its own.

def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=120,
        env={**os.environ, **environment}, cwd=Path(detr.__file__).parents[2])


def test_the_module_costs_nothing_until_the_detector_is_made():
    code = ('import sys; import img2scene_ros.detection.detr; '
            "print([name for name in ('torch', 'transformers', 'PIL') if name in sys.modules])")
    assert run(code).stdout == '[]\n'


@pytest.mark.slow
def test_says_nothing_of_its_own_on_the_terminal(checkpoint, frames_folder, tmp_path):
    put_into_cache(checkpoint('rt_detr_v2'), tmp_path / 'hub')
    code = f'''
from img2scene_ros.detection.detr import DetrDetector, DetrOptions
from img2scene_ros.io.frames import load_frame
detector = DetrDetector(DetrOptions(checkpoint='{NAME}', score_threshold=0.0))
print(len(detector.detect(load_frame({str(frames_folder / 'ycb_1')!r}))))
'''
    done = run(code, HF_HOME=str(tmp_path), HF_HUB_CACHE=str(tmp_path / 'hub'))
    assert (done.stdout, done.stderr) == ('20\n', '')
