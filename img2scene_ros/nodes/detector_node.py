# SPDX-License-Identifier: Apache-2.0
"""The detector node: a detector alone, for a scene node elsewhere or for any other program."""

from dataclasses import dataclass
from threading import Event
from threading import Thread
from time import monotonic
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image

from img2scene_ros.depth import DepthNoise
from img2scene_ros.nodes.diagnostics import TICK
from img2scene_ros.nodes.diagnostics import Diagnostics
from img2scene_ros.nodes.diagnostics import Problems
from img2scene_ros.nodes.inputs import InputOptions
from img2scene_ros.nodes.inputs import Inputs
from img2scene_ros.nodes.logs import forward_logging
from img2scene_ros.nodes.messages import image_from_labels
from img2scene_ros.nodes.messages import picture_header
from img2scene_ros.nodes.pairing import Pairing
from img2scene_ros.nodes.parameters import ParameterGroup
from img2scene_ros.nodes.parameters import declare_or_refuse
from img2scene_ros.nodes.parameters import on_change
from img2scene_ros.nodes.topics import publisher
from img2scene_ros.nodes.topics import timer
from img2scene_ros.nodes.transforms import Transforms
from img2scene_ros.nodes.workers import IDLE
from img2scene_ros.nodes.workers import Meter
from img2scene_ros.nodes.workers import begin
from img2scene_ros.options import option
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.registry import backends
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame

TF_TIMEOUT = 0.2  # seconds to wait for where a depth camera is that is not the picture's


@dataclass(frozen=True)
class DetectorNodeOptions(InputOptions):
    """What the detector looks at, and which one it is."""

    detector: str = option(
        'auto', 'What finds the objects', group='detectors', read_only=True)
    segmenter: str = option(
        'none', "What segments the boxes of detectors without masks: 'none', or a checkpoint on "
        'the Hugging Face Hub (OWNER/NAME) or in a folder', read_only=True)
    sync_tolerance: float = option(
        0.02, 'Greatest difference of the stamps of a picture and its depth image [s]',
        low=0.0, high=1.0, read_only=True)


class DetectorNode(Node):
    """
    Publishes what each picture shows: boxes and names, and the pixels of each.

    :raises Img2SceneError: an option that is not allowed, or a detector that cannot be built
    """

    def __init__(self) -> None:
        super().__init__('detector')
        forward_logging(self.get_logger())
        self.is_done = False
        self._backend_groups: dict[str, ParameterGroup[Any]] = {
            name: ParameterGroup(found.Options, f'{name}.')
            for name, found in backends('detectors').items()}
        own = ParameterGroup(DetectorNodeOptions)
        noise = ParameterGroup(DepthNoise, 'depth_noise.')
        self._groups: list[ParameterGroup[Any]] = [own, noise, *self._backend_groups.values()]
        declare_or_refuse(self, *self._groups)
        self._options = options = own.read(self)
        # Of a pipeline that only detects; the other backends are those that load nothing.
        self._pipeline = Pipeline(
            PipelineOptions(
                detector=options.detector, segmenter=options.segmenter, distance='fixed',
                reconstructor='box'),
            {name: group.read(self) for name, group in self._backend_groups.items()})
        on_change(self, self._change)
        self._detections = self._detections_publisher()
        self._labels = publisher(self, Image, '~/labels')
        self._diagnostics = Diagnostics(self)
        self._problems = Problems(self.get_logger())
        self._pairing = Pairing(options.sync_tolerance)
        self._inputs = Inputs(
            self, self._pairing, options, Transforms(self, TF_TIMEOUT), noise.read(self))
        self._meter, self._stopping = Meter(), Event()
        begin([Thread(target=self._run, daemon=True)], self._stopping)
        timer(self, TICK, self._on_tick)
        status = self._pipeline.detector_status
        self.get_logger().info(
            f"the detector '{options.detector}' listens to {self._inputs.topics}"
            + (f' and takes {status}' if status else ''))

    def close(self) -> None:
        """Begin nothing new."""
        self._stopping.set()

    def _change(self, changes: dict[str, Any]) -> None:
        for group in self._groups:
            group.check_changeable(self, changes)
        self._pipeline.configure({
            name: changes[name] for group in self._backend_groups.values()
            for name in group.names if name in changes})

    def _detections_publisher(self) -> Any:
        """Return the publisher of boxes and names; None where its messages are not installed."""
        try:
            from vision_msgs.msg import Detection2DArray
        except ImportError as error:
            self.get_logger().warning(
                f'only ~/labels is published, without names: vision_msgs cannot be imported '
                f'({error}); install ros-<distro>-vision-msgs')
            return None
        return publisher(self, Detection2DArray, '~/detections')

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._problems.survives('detection', self._work)

    def _work(self) -> None:
        pair = self._pairing.take(IDLE)
        frame = self._inputs.frame(pair) if pair else None
        if frame is None:
            return
        started = monotonic()
        detections = self._pipeline.detect(frame)
        self._meter.add(monotonic() - started)
        if not self._stopping.is_set():
            self._publish(frame, detections)
        self._problems.solved('detection')

    def _publish(self, frame: Frame, detections: list[Detection]) -> None:
        """Publish pixels first: who waits for both has them when the names come."""
        header = picture_header(frame)
        self._labels.publish(image_from_labels(header, label_pixels(detections, frame.shape)))
        if self._detections:
            from img2scene_ros.nodes.vision_messages import detections_message

            self._detections.publish(detections_message(
                header, {str(place): one for place, one in enumerate(detections, 1)}))

    def _on_tick(self) -> None:
        self._inputs.follow()
        self._inputs.report(self._problems, self._inputs.missing())
        rate, seconds = self._meter.report()
        self._diagnostics.publish(
            'detecting', list(self._problems.present.values()),
            {'frames [1/s]': round(rate, 2), 'detection [s]': round(seconds, 4)} | {
                f'dropped: {reason}': n for reason, n in self._pairing.dropped.items()})


def label_pixels(detections: list[Detection], shape: tuple[int, int]) -> np.ndarray:
    """
    Draw masks, smaller ones over larger ones.

    :return: (H, W) uint16: 0 is none, 1 the first detection
    """
    labels = np.zeros(shape, np.uint16)
    masks = [(one.mask, place) for place, one in enumerate(detections, 1) if one.mask is not None]
    for mask, place in sorted(masks, key=lambda drawn: -np.count_nonzero(drawn[0])):
        labels[mask] = place
    return labels
