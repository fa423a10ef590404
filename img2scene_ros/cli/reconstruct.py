# SPDX-License-Identifier: Apache-2.0
"""img2scene reconstruct: the objects in frames or photos."""

import argparse
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING
from typing import Any
from typing import NoReturn

from img2scene_ros.cli import terminal
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import OptionError
from img2scene_ros.errors import attempt

if TYPE_CHECKING:  # heavy, and not needed for --help
    from rich.console import Console

    from img2scene_ros.depth import DepthNoise
    from img2scene_ros.io.bags import Bag
    from img2scene_ros.io.bags import BagFrame
    from img2scene_ros.io.layouts import FrameFiles
    from img2scene_ros.pipeline import Pipeline
    from img2scene_ros.types import Frame

SHORTS = ('detector', 'reconstructor')


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        'reconstruct', help='rebuild the objects in frames or pictures',
        description='Rebuild the objects in frames or photos. Each input gets an export '
        'directory with scene.glb, scene.png, overlay.png, a mesh per object and objects.json.')
    parser.add_argument(
        'color', nargs='+', type=Path, metavar='COLOR',
        help='a frame folder (color.png, depth.png, camera.json), a folder of them, a data set '
        '(TUM, BOP, rgb and depth), a recording (.mcap, .db3, .bag) or a picture; see '
        'docs/inputs.md')
    parser.add_argument(
        '--depth', type=Path,
        help='depth image registered to the only picture: PNG, TIFF, PGM, PFM, EXR, NPY or NPZ')
    parser.add_argument(
        '--depth-unit', metavar='UNIT',
        help='unit of depth images: m, cm, mm, or metres such as 0.0001 or 1/5000 (default: what '
        'calibration or data set tells, else mm for 16 bits and m for floats)')
    parser.add_argument(
        '--camera', type=Path, metavar='FILE',
        help='calibration of the pictures: camera.json, or of ROS, RealSense, Open3D, BOP, or '
        'text with fx fy cx cy')
    parser.add_argument(
        '--every', type=terminal.whole_number, default=1, metavar='N',
        help='take every Nth frame of a folder or recording (default: %(default)s)')
    parser.add_argument(
        '--fov', '--field-of-view', type=float, metavar='DEG', dest='field_of_view',
        help='horizontal field of view of pictures without a camera file (default: from EXIF, '
        'else 60)')
    parser.add_argument(
        '--formats', metavar='NAMES',
        help='formats of the single meshes, such as glb,obj,ply,stl,dae; short for --set '
        'export.formats=NAMES')
    terminal.add_settings(parser, *SHORTS)
    parser.add_argument(
        '--params', type=Path, metavar='FILE.yaml', help='take options from a ROS parameter file')
    parser.add_argument(
        '--help-options', action=_HelpOptions, nargs=0, help='list the options and exit')
    parser.add_argument(
        '--out', type=Path, metavar='DIR',
        help='export directory; with several inputs each gets a folder in it '
        '(default: out/NAME and out)')
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    from img2scene_ros.pipeline import Pipeline
    from img2scene_ros.pipeline import parse_settings
    from img2scene_ros.settings import read_assignments
    from img2scene_ros.settings import read_parameter_file

    settings = read_parameter_file(chosen.params) if chosen.params else {}
    settings |= terminal.settings_of(chosen, *SHORTS)
    if chosen.formats is not None:
        settings |= read_assignments([f'export.formats={chosen.formats}'])
    _, others = parse_settings(settings)
    recordings = _recordings(chosen)
    total = sum(map(len, recordings))
    wrong = _bad_inputs(recordings, chosen.camera)
    for files, reason in wrong.items():
        terminal.complain(f'{files.name}: {reason}')
    failed = bool(wrong)
    console = terminal.open_console()
    start = perf_counter()
    pipeline = Pipeline(*parse_settings(settings))
    console.print(f'ready after {perf_counter() - start:.2f} s')
    for source, folder in _with_progress(console, recordings, chosen.out, total):
        if source in wrong:
            continue
        result = attempt(
            _reconstruct_one, pipeline, source, folder, chosen, others, console, total == 1)
        if not isinstance(result, Img2SceneError):
            terminal.print_objects(console, folder, *result)
        elif total == 1:
            raise result
        else:
            terminal.complain(f'{source.name}: {result}')
            failed = True
    return 1 if failed else 0


def _recordings(chosen: argparse.Namespace) -> list['list[FrameFiles] | Bag']:
    """Return the inputs, each with its frames."""
    from img2scene_ros.depth import parse_depth_unit
    from img2scene_ros.io.bags import Bag
    from img2scene_ros.io.frames import open_frames

    if chosen.depth_unit:
        parse_depth_unit(chosen.depth_unit)
    recordings = [open_frames(path, chosen.every) for path in chosen.color]
    bags = [recording for recording in recordings if isinstance(recording, Bag)]
    if chosen.depth_unit and bags:
        raise OptionError('--depth-unit belongs to files; a recording tells its encoding')
    if chosen.depth:
        pictures = recordings[0]
        if isinstance(pictures, Bag) or sum(map(len, recordings)) > 1:
            raise OptionError('--depth belongs to one picture; put several into frame folders')
        return [[replace(pictures[0], depth=chosen.depth)]]
    return recordings


def _bad_inputs(
    recordings: list['list[FrameFiles] | Bag'], camera: Path | None,
) -> dict['FrameFiles', Img2SceneError]:
    """
    Return the frames that cannot be used, by what their files begin with, and why.

    A calibration that fits one picture is not checked for every other.

    :raises Img2SceneError: there are no frames but these
    """
    from img2scene_ros.io.frames import check_calibration

    good, wrong = set(), {}
    for files in chain(*(frames for frames in recordings if isinstance(frames, list))):
        if (camera or files.calibration) in good:
            continue
        error = attempt(check_calibration, files, camera)
        if error is None:
            good.add(camera or files.calibration)
        else:
            wrong[files] = error
    if wrong and len(wrong) == sum(map(len, recordings)):
        raise next(iter(wrong.values()))
    return wrong


def _reconstruct_one(
    pipeline: 'Pipeline', source: 'FrameFiles | BagFrame', folder: Path,
    chosen: argparse.Namespace, options: dict[str, Any], console: 'Console', is_alone: bool,
) -> tuple[dict[str, float], list[str]]:
    """
    Rebuild what one input shows, and export it.

    :param options: of export and depth_noise, where given
    :param is_alone: there is no bar for several inputs; one for the objects is shown
    :return: seconds of each stage; what was assumed or is to be known
    """
    from img2scene_ros.scene.export import ExportOptions
    from img2scene_ros.scene.export import check_replaceable
    from img2scene_ros.scene.export import export_scene

    check_replaceable(folder)
    start = perf_counter()
    frame, remarks = _loaded(source, chosen, options.get('depth_noise'))
    pipeline.restart()
    loaded = perf_counter()
    with terminal.progress_bar(console, 'Rebuilding objects', is_shown=is_alone) as progress:
        scene = pipeline.run(frame, progress)
    found = perf_counter()
    export_scene(folder, scene, options.get('export', ExportOptions()))
    times = {'read': loaded - start, **scene.timing, 'export': perf_counter() - found}
    if pipeline.detector_status:  # why is in the log
        remarks.append(f"detector: {pipeline.detector_status.split(', because')[0]}")
    if not scene.objects and not scene.notes:
        remarks.append(_nothing_found(pipeline))
    remarks += [f'note: {note}' for note in scene.notes]
    remarks += [f'note: {item.id} {item.detection.label}: {item.note}'
                for item in scene.objects if item.note]
    return times, remarks


def _loaded(
    source: 'FrameFiles | BagFrame', chosen: argparse.Namespace,
    depth_noise: 'DepthNoise | None',
) -> tuple['Frame', list[str]]:
    """Read an input; say what was assumed about a photo."""
    from img2scene_ros.depth import parse_depth_unit
    from img2scene_ros.io.bags import BagFrame
    from img2scene_ros.io.frames import load_frame
    from img2scene_ros.io.photos import load_photo

    if source.has_depth or isinstance(source, BagFrame):
        unit = parse_depth_unit(chosen.depth_unit) if chosen.depth_unit else None
        assumed = {} if chosen.field_of_view is None else {'field_of_view': chosen.field_of_view}
        return load_frame(source, camera=chosen.camera, depth_noise=depth_noise, depth_unit=unit,
                          **assumed), []
    photo = load_photo(
        source.color, chosen.camera or source.calibration, chosen.field_of_view)
    remarks = [f'camera: {photo.camera}'] + ([f'photo: {photo.resized}'] if photo.resized else [])
    return photo.frame, remarks


def _nothing_found(pipeline: 'Pipeline') -> str:
    parts = getattr(pipeline.detector, 'parts', (pipeline.options.detector,))
    network = next((name for name in ('detr', 'coco') if name in parts), '')
    if not network:
        return 'no object was found'
    return (f'no object was found: lower --set {network}.score_threshold=0.1, or take a stronger '
            'detector with --set detr.checkpoint=OWNER/NAME of the Hugging Face Hub')


def _with_progress(
    console: 'Console', recordings: Sequence['list[FrameFiles] | Bag'], out: Path | None,
    total: int,
) -> Iterator[tuple['FrameFiles | BagFrame', Path]]:
    """Yield every input with its export directory; inputs of one name are numbered."""
    from rich.progress import track

    used: set[str] = set()
    for source in track(chain.from_iterable(recordings), 'Reconstructing', total, console=console,
                        disable=total == 1 or not console.is_terminal):
        numbered = (f'{source.name}_{number}' for number in count(2))
        unique = next(name for name in chain([source.name], numbered) if name not in used)
        used.add(unique)
        yield source, out if out and total == 1 else (out or terminal.DEFAULT_OUT) / unique


class _HelpOptions(argparse.Action):
    """Prints every option of the pipeline and its backends, and ends."""

    def __call__(self, *_: Any) -> NoReturn:
        from img2scene_ros.settings import describe_options

        print(describe_options(), flush=True)
        sys.exit(0)
