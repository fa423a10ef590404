# SPDX-License-Identifier: Apache-2.0
"""Pictures for people: what was detected, and what was reconstructed."""

import colorsys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.files import write_whole
from img2scene_ros.rendering import raycast
from img2scene_ros.types import Frame
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject
from img2scene_ros.types import SupportPlane

FONT = cv2.FONT_HERSHEY_SIMPLEX
PANEL_WIDTH, PANEL_HEIGHT = 640, 480  # pixels
BACKDROP, GROUND = (46, 49, 54), (120, 122, 126)  # RGB
SKY_RAYS = 8  # per pixel, for the light of the sky
TABLE_EDGE = 0.02  # metres inside the table's outline that may belong to what is beyond
STEEPEST = 8.0  # triangles of the depth image seen flatter than 1:8 are depth jumps


def color_of(object_id: int) -> tuple[int, int, int]:
    """Return the colour that marks an object in all pictures: RGB, 0 to 255."""
    hue = (object_id * 0.618034) % 1.0  # the golden ratio keeps neighbours far apart
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return int(255 * red), int(255 * green), int(255 * blue)


def draw_overlay(scene: Scene) -> np.ndarray:
    """
    Draw the objects onto the scene's picture: mask, box, id, label, score and distance in metres.

    :return: (H, W, 3) uint8, RGB
    """
    picture = scene.frame.color.copy()
    objects = [item for item in scene.objects if item.state != 'out_of_view']
    for item in objects:
        if item.detection.mask is not None:
            mask = _resized(item.detection.mask, scene.frame.shape)
            _draw_mask(picture, mask, color_of(item.id))
    taken: list[tuple[int, int, int, int]] = []
    for item in objects:
        corners = np.rint(item.detection.bbox).astype(int).tolist()
        cv2.rectangle(picture, corners[:2], corners[2:], color_of(item.id), 1, cv2.LINE_AA)
    for item in objects:
        _draw_label(picture, item, taken)
    return picture


def draw_scene(scene: Scene) -> np.ndarray:
    """
    Draw the picture, the reconstructed scene from the camera's place, and from the side above.

    :return: (h, w, 3) uint8, RGB: three panels side by side, each at most 640x480 pixels
    :raises MissingDependencyError: Open3D is not installed
    """
    scene = replace(scene, frame=_fitted(scene.frame))
    frame = scene.frame
    up = np.array([0.0, -1.0, 0.0]) if scene.support is None else scene.support.normal
    objects = [
        raycast.Surface(item.points, item.model.faces, item.model.colors, item.id,
                texture=item.model.texture)
        for item in scene.objects]
    hidden = _hidden(scene, objects)
    muted = _muted(_filled(frame.color, ~hidden))
    context = _context(scene, hidden, muted)
    lights = raycast.Lights(0.3, 0.55, 0.3, tuple(up), SKY_RAYS)
    first = raycast.render(
        [*context, *objects], frame.camera, None, lights, muted, supersampling=2).color
    panels = [('camera picture', frame.color), ('reconstructed, as the camera sees it', first)]
    if objects:
        points = np.concatenate([item.points for item in scene.objects])
        camera = Camera.from_field_of_view(frame.camera.width, frame.camera.height, 40.0)
        context = context or [_ground(points, up)]
        second = raycast.render(
            [*context, *objects], camera, _side_view(points, up, camera), lights, BACKDROP,
            supersampling=2).color
        panels.append(('reconstructed, from the side', second))
    return np.hstack([captioned(picture, text, 26) for text, picture in panels])


def write_png(path: Path, picture: np.ndarray) -> None:
    """
    Write a picture, (H, W, 3) uint8, RGB.

    :raises InputError: it cannot be written
    """
    write_whole(path, cv2.imencode('.png', picture[..., ::-1])[1].tobytes())


def captioned(picture: np.ndarray, text: str, height: int = 16) -> np.ndarray:
    """
    Put a line of text above a picture, and a dark edge at its right for the next one.

    :param picture: (H, W, 3) uint8, RGB
    :param height: of the line, pixels
    :return: (height + H, W, 3)
    """
    strip = np.full((height, picture.shape[1], 3), 24, np.uint8)
    cv2.putText(strip, text, (height // 4, height - height // 3), FONT, 0.3 + 0.005 * height,
                (220, 220, 220), 1, cv2.LINE_AA)
    panel = np.vstack([strip, picture])
    panel[:, -1] = 24
    return panel


def _draw_mask(picture: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    picture[mask] = (0.65 * picture[mask] + 0.35 * np.array(color)).astype(np.uint8)
    outlines, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, color, 2, cv2.LINE_AA)


def _draw_label(
    picture: np.ndarray, item: SceneObject, taken: list[tuple[int, int, int, int]],
) -> None:
    """Write an object's label near the top of its box, where no other label is."""
    detection = item.detection
    distance = np.linalg.norm(item.position)
    text = f'{item.id} {detection.label} {detection.score:.2f}  {distance:.2f} m'
    height, width = picture.shape[:2]
    scale = max(0.42, height / 1200)
    (w, h), _ = cv2.getTextSize(text, FONT, scale, 1)
    w, h = w + 8, h + 8
    left = int(np.clip(detection.bbox[0], 0, max(0, width - w)))
    top = int(np.clip(detection.bbox[1] - h, 0, max(0, height - h)))
    for candidate in range(top, height - h, h):
        if not any(_overlap((left, candidate, left + w, candidate + h), box) for box in taken):
            top = candidate
            break
    taken.append((left, top, left + w, top + h))
    color = color_of(item.id)
    cv2.rectangle(picture, (left, top), (left + w, top + h), color, cv2.FILLED)
    ink = (0, 0, 0) if np.dot(color, (0.3, 0.6, 0.1)) > 110 else (255, 255, 255)
    cv2.putText(picture, text, (left + 4, top + h - 5), FONT, scale, ink, 1, cv2.LINE_AA)


def _overlap(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return (one[0] < other[2] and other[0] < one[2]
            and one[1] < other[3] and other[1] < one[3])


def _resized(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a mask at the size of a picture: height and width in pixels."""
    return cv2.resize(
        mask.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)


def _fitted(frame: Frame) -> Frame:
    """Return the frame scaled down to the size of a panel."""
    height, width = frame.shape
    scale = min(1.0, PANEL_WIDTH / width, PANEL_HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    depth = frame.depth
    if depth is not None:
        depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
    color = cv2.resize(frame.color, size, interpolation=cv2.INTER_AREA)
    return Frame(color, frame.camera.resized(*size), depth)


def _hidden(scene: Scene, objects: list[raycast.Surface]) -> np.ndarray:
    """Return the pixels that show objects, with a margin for the mixed pixels at edges."""
    hidden = raycast.render(objects, scene.frame.camera).ids > 0
    for item in scene.objects:
        if item.detection.mask is not None:
            hidden |= _resized(item.detection.mask, scene.frame.shape)
    return cv2.dilate(hidden.astype(np.uint8), np.ones((7, 7))).astype(bool)


def _filled(color: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the picture with its unknown pixels blurred in from those around."""
    height, width = known.shape
    small = max(1, width // 4), max(1, height // 4)
    weight = cv2.resize(known.astype(np.float32), small, interpolation=cv2.INTER_AREA)[..., None]
    sum_of_colors = weight * np.asarray(cv2.resize(color, small, interpolation=cv2.INTER_AREA))
    guess = color[known].mean(axis=0) if known.any() else np.zeros(3)
    for sigma in (small[0] / 8, small[0] / 20, small[0] / 50):
        blurred_sum, blurred_weight = (
            cv2.GaussianBlur(image, (0, 0), sigma) for image in (sum_of_colors, weight))
        guess = (blurred_sum + 0.05 * guess) / (blurred_weight[..., None] + 0.05)
    return np.where(known[..., None], color, cv2.resize(guess, (width, height)))


def _muted(color: np.ndarray) -> np.ndarray:
    """Return the picture paler and darker, so that objects stand out before it."""
    grey = color.mean(axis=2, keepdims=True)
    return (0.8 * (0.5 * color + 0.5 * grey)).astype(np.uint8)


def _context(scene: Scene, hidden: np.ndarray, color: np.ndarray) -> list[raycast.Surface]:
    """Return what the objects stand among: the table, closed under them, and things on it."""
    frame = scene.frame
    if scene.support is None:
        return []
    measured = np.full(frame.shape, np.nan) if frame.depth is None else frame.depth
    over = scene.support.is_over(frame.camera.rays * measured[..., None], -TABLE_EDGE)
    table, on_table = _table(frame.camera, scene.support)
    flat = hidden | ~(np.abs(measured - table) > 0.02 * table)
    depth = np.where(on_table & flat, table, np.where(over & ~hidden, measured, np.nan))
    faces = _grid_faces(depth, STEEPEST / frame.camera.fx)
    if not len(faces):
        return []
    points = np.nan_to_num(frame.camera.rays * depth[..., None])
    return [raycast.Surface(points.reshape(-1, 3), faces, color.reshape(-1, 3), lit=False)]


def _table(camera: Camera, support: SupportPlane) -> tuple[np.ndarray, np.ndarray]:
    """Return the depth of the support plane at every pixel, and the pixels inside its outline."""
    slope = camera.rays @ support.normal
    depth = -support.offset / np.where(np.abs(slope) < 1e-6, np.nan, slope)
    if support.hull is None:  # it goes on without end
        return depth, depth > 0
    outline = camera.project(support.hull)
    outline = np.clip(outline[np.isfinite(outline).all(axis=1)], -1e6, 1e6)
    inside = np.zeros(depth.shape, np.uint8)
    if len(outline):
        cv2.fillPoly(inside, [np.rint(outline).astype(np.int32)], 1)
    return depth, inside.astype(bool) & (depth > 0)


def _grid_faces(depth: np.ndarray, steepest: float) -> np.ndarray:
    """
    Return two triangles per four neighbouring pixels, none over missing depth or jumps.

    :param steepest: greatest difference of depth within a triangle, as a share of the depth
    """
    index = np.arange(depth.size).reshape(depth.shape)
    a, b, c, d = (grid.ravel() for grid in (
        index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    faces = np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])
    corners = depth.ravel()[faces]
    # NaN compares false.
    return faces[np.ptp(corners, axis=1) < steepest * corners.min(axis=1)]


def _ground(points: np.ndarray, up: np.ndarray) -> raycast.Surface:
    """Return a plain ground under the lowest point."""
    center = (points.min(axis=0) + points.max(axis=0)) / 2
    reach = 2.0 * np.linalg.norm(np.ptp(points, axis=0))
    center = center + up * ((points - center) @ up).min()
    right = np.cross(up, (0.0, 0.0, 1.0))
    front = np.cross(right, up)
    corners = center + reach * np.array(
        [right + front, right - front, -right - front, -right + front])
    return raycast.Surface(
        corners, np.array([[0, 1, 2], [0, 2, 3]]), np.full((4, 3), GROUND), lit=False)


def _side_view(points: np.ndarray, up: np.ndarray, camera: Camera) -> np.ndarray:
    """Return the pose of a camera that sees all points from the side and above."""
    center = (points.min(axis=0) + points.max(axis=0)) / 2
    to_camera = -center + up * (center @ up)
    to_camera = to_camera + (0.0, 1e-6, 0.0)  # straight above: the picture's lower side
    to_camera /= np.linalg.norm(to_camera)
    turn, rise = np.radians(50.0), np.radians(46.0)
    outwards = (np.cos(rise) * (np.cos(turn) * to_camera + np.sin(turn) * np.cross(up, to_camera))
                + np.sin(rise) * up)
    half = 0.72 * np.array([camera.cx / camera.fx, camera.cy / camera.fy])
    for _ in range(4):  # go as near as all are seen, then look at the middle of what is seen
        pose = raycast.look_at(center + outwards, center, up)
        seen = (points - center) @ pose[:3, :3]
        distance = (np.abs(seen[:, :2]) / half - seen[:, 2:]).max()
        plane = seen[:, :2] / (seen[:, 2:] + distance)
        middle = (plane.min(axis=0) + plane.max(axis=0)) / 2
        eye = center + outwards * distance
        center = center + pose[:3, :2] @ middle * distance
    return raycast.look_at(eye, eye - outwards, up)
