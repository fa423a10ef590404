# SPDX-License-Identifier: Apache-2.0
"""img2scene reconstruct: the objects in frames or photos."""

import argparse
import sys
from collections.abc import Iterable
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING
from typing import Any
from typing import NoReturn

from img2scene_ros.cli.terminal import DEFAULT_OUT
from img2scene_ros.cli.terminal import complain
from img2scene_ros.cli.terminal import input_paths
from img2scene_ros.cli.terminal import open_console
from img2scene_ros.cli.terminal import print_objects
from img2scene_ros.cli.terminal import progress_bar
from img2scene_ros.errors import OptionError
from img2scene_ros.errors import attempt

if TYPE_CHECKING:  # heavy, and not needed for --help
    from rich.console import Console

    from img2scene_ros.depth import DepthNoise
    from img2scene_ros.pipeline import Pipeline
    from img2scene_ros.types import Frame


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        'reconstruct', help='rebuild the objects in frames or pictures',
        description='Rebuild the objects in frames or photos. Each input gets an export '
        'directory with scene.glb, scene.png, overlay.png, a mesh per object and objects.json.')
    parser.add_argument(
        'color', nargs='+', type=Path, metavar='COLOR',
        help='a frame folder (color.png, depth.png, camera.json), a folder of them, or a picture')
    parser.add_argument(
        '--depth', type=Path,
        help='depth image registered to the picture: 16-bit PNG, millimetres (one picture only)')
    parser.add_argument(
        '--camera', type=Path, help="calibration of the pictures: a frame folder's camera.json")
    parser.add_argument(
        '--fov', '--field-of-view', type=float, metavar='DEG', dest='field_of_view',
        help='horizontal field of view of pictures without a camera file (default: from EXIF, '
        'else 60)')
    parser.add_argument('--detector', metavar='NAME', help='short for --set detector=NAME')
    parser.add_argument(
        '--reconstructor', metavar='NAME', help='short for --set reconstructor=NAME')
    parser.add_argument(
        '--formats', metavar='NAMES',
        help='formats of the single meshes, such as glb,obj,ply,stl,dae; short for --set '
        'export.formats=NAMES')
    parser.add_argument(
        '--set', action='append', default=[], metavar='NAME=VALUE', dest='settings',
        help='set an option, by the name of its ROS parameter (may be repeated)')
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
    settings |= read_assignments(chosen.settings)
    if chosen.formats is not None:
        settings |= read_assignments([f'export.formats={chosen.formats}'])
    for name in ('detector', 'reconstructor'):
        if getattr(chosen, name) is not None:
            settings[name] = getattr(chosen, name)
    inputs = input_paths(chosen.color)
    if chosen.depth and len(inputs) > 1:
        raise OptionError('--depth belongs to one picture; put several into frame folders')
    _, others = parse_settings(settings)
    console = open_console()
    start = perf_counter()
    pipeline = Pipeline(*parse_settings(settings))
    console.print(f'ready after {perf_counter() - start:.2f} s')
    failed = False
    for source, folder in _with_progress(console, _folders(inputs, chosen.out)):
        error = attempt(
            _reconstruct_one, pipeline, source, folder, chosen, others, console,
            len(inputs) == 1)
        if error is not None:
            if len(inputs) == 1:
                raise error
            complain(f'{source}: {error}')
            failed = True
    return 1 if failed else 0


def _reconstruct_one(
    pipeline: 'Pipeline', source: Path, folder: Path, chosen: argparse.Namespace,
    options: dict[str, Any], console: 'Console', is_alone: bool,
) -> None:
    """
    Rebuild what one input shows, and print what was found, assumed, and how long it took.

    :param options: of export and depth_noise, where given
    :param is_alone: there is no bar for several inputs; one for the objects is shown
    """
    from img2scene_ros.scene.export import ExportOptions
    from img2scene_ros.scene.export import export_scene

    start = perf_counter()
    frame, remarks = _loaded(source, chosen, options.get('depth_noise'))
    pipeline.restart()
    loaded = perf_counter()
    with progress_bar(console, 'Rebuilding objects', is_shown=is_alone) as progress:
        scene = pipeline.run(frame, progress)
    found = perf_counter()
    export_scene(folder, scene, options.get('export', ExportOptions()))
    times = {'read': loaded - start, **scene.timing, 'export': perf_counter() - found}
    if pipeline.detector_status:  # why is in the log
        remarks.append(f"detector: {pipeline.detector_status.split(', because')[0]}")
    if not scene.objects:
        remarks.append(_nothing_found(pipeline))
    remarks += [f'note: {note}' for note in scene.notes]
    remarks += [f'note: {item.id} {item.detection.label}: {item.note}'
                for item in scene.objects if item.note]
    print_objects(console, folder, times, remarks)


def _loaded(
    source: Path, chosen: argparse.Namespace, depth_noise: 'DepthNoise | None',
) -> tuple['Frame', list[str]]:
    """Read an input; say what was assumed about a photo."""
    from img2scene_ros.io.frames import load_frame
    from img2scene_ros.io.photos import load_photo

    if source.is_dir() or chosen.depth:
        return load_frame(
            source, chosen.depth, chosen.camera, chosen.field_of_view or 60.0, depth_noise), []
    photo = load_photo(source, chosen.camera, chosen.field_of_view)
    remarks = [f'camera: {photo.camera}'] + ([f'photo: {photo.resized}'] if photo.resized else [])
    return photo.frame, remarks


def _nothing_found(pipeline: 'Pipeline') -> str:
    parts = getattr(pipeline.detector, 'parts', (pipeline.options.detector,))
    network = next((name for name in ('detr', 'coco') if name in parts), '')
    if not network:
        return 'no object was found'
    return (f'no object was found: lower --set {network}.score_threshold=0.1, or take a stronger '
            'detector with --set detr.checkpoint=OWNER/NAME of the Hugging Face Hub')


def _folders(inputs: Sequence[Path], out: Path | None) -> list[tuple[Path, Path]]:
    """Return every input with its export directory; inputs of one name are numbered."""
    names: dict[str, int] = {}
    pairs = []
    for path in inputs:
        name = path.resolve().name if path.is_dir() else path.stem
        names[name] = names.get(name, 0) + 1
        unique = name if names[name] == 1 else f'{name}_{names[name]}'
        pairs.append((path, (out or DEFAULT_OUT) / unique))
    return [(inputs[0], out)] if out and len(inputs) == 1 else pairs


def _with_progress(
    console: 'Console', pairs: list[tuple[Path, Path]],
) -> Iterable[tuple[Path, Path]]:
    from rich.progress import track

    is_long = len(pairs) > 1 and console.is_terminal
    return track(pairs, 'Reconstructing', console=console, disable=not is_long)


class _HelpOptions(argparse.Action):
    """Prints every option of the pipeline and its backends, and ends."""

    def __call__(self, *_: Any) -> NoReturn:
        from img2scene_ros.settings import describe_options

        print(describe_options())
        sys.exit(0)
