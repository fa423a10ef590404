# SPDX-License-Identifier: Apache-2.0
"""Scenes as messages of vision_msgs, and detections from them; imported where it is there."""

import numpy as np
from std_msgs.msg import Header
from vision_msgs import msg

from img2scene_ros.detection import bbox_of
from img2scene_ros.errors import InputError
from img2scene_ros.nodes.messages import pose_from_matrix
from img2scene_ros.nodes.published import published_frame
from img2scene_ros.types import UNNAMED
from img2scene_ros.types import Detection
from img2scene_ros.types import Scene


def objects_message(scene: Scene) -> msg.Detection3DArray:
    """Make the message of all objects: names, poses with covariance, boxes along their axes."""
    frame = published_frame(scene.frame)
    message = msg.Detection3DArray(header=frame.header)
    for item in scene.objects:
        pose = pose_from_matrix(frame.pose(item))
        box = msg.BoundingBox3D(center=pose)
        box.size.x, box.size.y, box.size.z = item.model.size.astype(float).tolist()
        results = _hypotheses(item.detection)
        for result in results:
            result.pose.pose = pose
            result.pose.covariance = frame.covariance(item).ravel()
        message.detections.append(
            msg.Detection3D(header=frame.header, results=results, bbox=box, id=str(item.id)))
    return message


def detections_message(header: Header, detections: dict[str, Detection]) -> msg.Detection2DArray:
    """
    Make the message of what a picture shows.

    :param header: the picture's
    :param detections: by id, '' where there is none
    """
    message = msg.Detection2DArray(header=header)
    for name, detection in detections.items():
        xmin, ymin, xmax, ymax = detection.bbox.astype(float).tolist()
        box = msg.BoundingBox2D(size_x=xmax - xmin, size_y=ymax - ymin)
        box.center.position.x, box.center.position.y = (xmin + xmax) / 2.0, (ymin + ymax) / 2.0
        message.detections.append(msg.Detection2D(
            header=header, results=_hypotheses(detection), bbox=box, id=name))
    return message


def detections_from_message(
    message: msg.Detection2DArray, shape: tuple[int, int], labels: np.ndarray | None,
) -> list[Detection]:
    """
    Read what somebody detected in a picture.

    A box that is turned becomes the upright one around it; what is no box within the picture is
    left out, unless its pixels are known.

    :param shape: of the picture, height and width
    :param labels: (H, W), the pixels of each detection by its id, where ids are whole numbers,
        else by its place in the message, from 1 on; None where nobody publishes them
    :raises InputError: the labels have another size than the picture
    """
    if labels is not None and labels.shape != shape:
        raise InputError(
            f'the label image has {labels.shape[1]}x{labels.shape[0]} pixels but the picture '
            f'{shape[1]}x{shape[0]}; publish the labels of this picture')
    detections = []
    for place, one in enumerate(message.detections, 1):
        value = int(one.id) if one.id.isdecimal() else place
        mask = None if labels is None else labels == value
        bbox = bbox_of(mask) if mask is not None and mask.any() else _clipped(one.bbox, shape)
        if bbox is None:
            continue
        names = sorted(((result.hypothesis.class_id or UNNAMED,
                         float(np.clip(np.nan_to_num(result.hypothesis.score), 0.0, 1.0)))
                        for result in one.results), key=lambda name: -name[1])
        label, score = names[0] if names else (UNNAMED, 1.0)
        detections.append(Detection(
            label, score, bbox, mask if mask is not None and mask.any() else None, tuple(names)))
    return detections


def _clipped(box: msg.BoundingBox2D, shape: tuple[int, int]) -> np.ndarray | None:
    """Return xmin, ymin, xmax, ymax within a picture, (4,); None where nothing is left."""
    cosine, sine = abs(np.cos(box.center.theta)), abs(np.sin(box.center.theta))
    half = np.array([cosine * box.size_x + sine * box.size_y,
                     sine * box.size_x + cosine * box.size_y]) / 2.0
    center = np.array([box.center.position.x, box.center.position.y])
    size = np.array(shape[::-1], float)
    bbox = np.concatenate([np.clip(center - half, 0.0, size), np.clip(center + half, 0.0, size)])
    # Less than a pixel shows nothing; NaN is no box.
    return bbox if (bbox[2:] - bbox[:2] >= 1.0).all() else None


def label_info(header: Header, names: dict[int, str]) -> msg.LabelInfo:
    """Make the message that tells the name of every pixel value of `~/labels`."""
    return msg.LabelInfo(header=header, class_map=[
        msg.VisionClass(class_id=value, class_name=name) for value, name in names.items()])


def _hypotheses(detection: Detection) -> list[msg.ObjectHypothesisWithPose]:
    names = detection.hypotheses or ((detection.label, detection.score),)
    return [msg.ObjectHypothesisWithPose(hypothesis=msg.ObjectHypothesis(
        class_id=label, score=float(score))) for label, score in names]
