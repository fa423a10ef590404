"""The command line: img2scene reconstruct | demo | bench | doctor."""

import argparse
import json
import logging
import sys
from collections.abc import Iterable
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import NoReturn

from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.errors import OptionError

if TYPE_CHECKING:  # heavy, and not needed for --help
    from rich.console import Console

    from img2scene_ros.pipeline import Pipeline

DEFAULT_OUT = Path('out')
PAGE_WIDTH = 100  # characters, where the output goes to a file


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 for failures, 2 for wrong usage."""
    logging.basicConfig(format='img2scene: %(message)s')
    logging.getLogger('img2scene_ros').setLevel(logging.INFO)
    chosen = _parser().parse_args(arguments)
    try:
        return chosen.run(chosen)
    except OptionError as error:
        _complain(str(error))
        return 2
    except Img2SceneError as error:
        _complain(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'img2scene: error: {message} (see {self.prog} --help)\n')


class _HelpOptions(argparse.Action):
    """Prints every option of the pipeline and its backends, and ends."""

    def __call__(self, *_: Any) -> NoReturn:
        from img2scene_ros.settings import describe_options

        print(describe_options())
        sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog='img2scene', description='Object models for robots: camera images in, '
                     'posed closed meshes out.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    _add_reconstruct(commands)
    _add_demo(commands)
    _add_bench(commands)
    doctor = commands.add_parser(
        'doctor', help='show versions, what is missing and how to mend it',
        description='Show versions, what is missing and how to mend it; the exit code is 1 when '
        'img2scene cannot work.')
    doctor.set_defaults(run=_doctor)
    return parser


def _add_reconstruct(commands: Any) -> None:
    parser = commands.add_parser(
        'reconstruct', help='rebuild the objects in frames or pictures',
        description='Rebuild the objects in frames or pictures. Each input gets an export '
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
        '--field-of-view', type=float, default=60.0, metavar='DEG',
        help='horizontal field of view of pictures without a camera file (default: %(default)s)')
    parser.add_argument('--detector', metavar='NAME', help='short for --set detector=NAME')
    parser.add_argument(
        '--reconstructor', metavar='NAME', help='short for --set reconstructor=NAME')
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
    parser.set_defaults(run=_reconstruct)


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser(
        'demo', help='play a recorded frame through the ROS nodes and save the scene',
        description='Play recorded frames through the real ROS nodes and save the scene.')
    parser.add_argument(
        '--frames', type=Path, metavar='FOLDER', help='a frame folder (default: the bundled one)')
    parser.add_argument(
        '--out', type=Path, metavar='DIR', default=DEFAULT_OUT / 'demo',
        help='export directory (default: %(default)s)')
    parser.set_defaults(run=_demo)


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser(
        'bench', help='measure time and accuracy on recorded frames',
        description='Measure the time per frame and per mesh on recorded frames, and the accuracy '
        'where a frame folder holds mask.png and measured.json; prints a Markdown table.')
    parser.add_argument(
        'frames', nargs='+', type=Path, metavar='FRAMES',
        help='a frame folder or a folder of them')
    parser.set_defaults(run=_bench)


def _bench(chosen: argparse.Namespace) -> int:
    from img2scene_ros.bench import bench

    print(bench(_inputs(chosen.frames)))
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from img2scene_ros.doctor import run_doctor

    return run_doctor()


def _demo(chosen: argparse.Namespace) -> int:
    try:
        from img2scene_ros.nodes.demo import run_demo
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the demo runs the ROS nodes and needs the Python package '{error.name}': source "
            'your ROS 2 installation (source /opt/ros/<distro>/setup.bash) or use `make demo`, '
            'which brings its own; `img2scene reconstruct` works without') from error
    run_demo(chosen.frames, chosen.out)
    _print_objects(_console(), chosen.out)
    return 0


def _reconstruct(chosen: argparse.Namespace) -> int:
    from img2scene_ros.pipeline import Pipeline
    from img2scene_ros.pipeline import parse_settings
    from img2scene_ros.settings import read_assignments
    from img2scene_ros.settings import read_parameter_file

    settings = read_parameter_file(chosen.params) if chosen.params else {}
    settings |= read_assignments(chosen.settings)
    for name in ('detector', 'reconstructor'):
        if getattr(chosen, name) is not None:
            settings[name] = getattr(chosen, name)
    inputs = _inputs(chosen.color)
    if chosen.depth and len(inputs) > 1:
        raise OptionError('--depth belongs to one picture; put several into frame folders')
    pipeline = Pipeline(*parse_settings(settings))
    console = _console()
    failed = False
    for source, folder in _with_progress(console, _folders(inputs, chosen.out)):
        try:
            _reconstruct_one(pipeline, source, folder, chosen)
            _print_objects(console, folder)
        except Img2SceneError as error:
            if len(inputs) == 1:
                raise
            _complain(f'{source}: {error}')
            failed = True
    return 1 if failed else 0


def _reconstruct_one(
    pipeline: 'Pipeline', source: Path, folder: Path, chosen: argparse.Namespace,
) -> None:
    from img2scene_ros.frame import load_frame
    from img2scene_ros.scene.export import export_scene

    frame = load_frame(source, chosen.depth, chosen.camera, chosen.field_of_view)
    pipeline.restart()
    scene = pipeline.run(frame)
    export_scene(folder, frame, scene)
    for item in scene.objects:
        if item.note:
            print(f'{source}: {item.id} {item.detection.label}: {item.note}')


def _inputs(given: Sequence[Path]) -> list[Path]:
    """Return one path per frame: folders of frames are replaced by what they hold."""
    from img2scene_ros.frame import find_frames

    return [path for item in given
            for path in (find_frames(item) if item.is_dir() else [item])]


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


def _console() -> 'Console':
    from rich.console import Console

    width = None if sys.stdout.isatty() else PAGE_WIDTH
    return Console(width=width, markup=False, highlight=False, soft_wrap=True)


def _with_progress(
    console: 'Console', pairs: list[tuple[Path, Path]],
) -> Iterable[tuple[Path, Path]]:
    from rich.progress import track

    is_long = len(pairs) > 1 and console.is_terminal
    return track(pairs, 'Reconstructing', console=console, disable=not is_long)


def _print_objects(console: 'Console', folder: Path) -> None:
    """Print what an export directory holds."""
    from rich import box
    from rich.table import Table

    summary = json.loads((folder / 'objects.json').read_text())
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for heading in ('id', 'label', 'score', 'position [mm]', 'size [mm]', 'depth', 'mesh by'):
        table.add_column(heading)
    table.add_column('faces', justify='right')
    table.add_column('closed')
    for item in summary['objects']:
        table.add_row(
            str(item['id']), item['label'], f"{item['score']:.2f}",
            _millimetres(item['position_m'], 4), _millimetres(item['size_m'], 3),
            item['depth_source'], item['reconstructor'], str(item['triangles']),
            'yes' if item['watertight'] else 'no')
    console.print(table)
    times = ', '.join(f'{stage} {seconds:.2f} s' for stage, seconds in summary['timing_s'].items())
    count = len(summary['objects'])
    console.print(f"{count} object{'' if count == 1 else 's'} ({times})")
    console.print(f'written: {folder}/scene.png, scene.glb, objects.json, ...')


def _millimetres(metres: Sequence[float], width: int) -> str:
    return ' '.join(f'{1000 * value:{width}.0f}' for value in metres)


def _complain(sentence: str) -> None:
    print(f'img2scene: error: {sentence}', file=sys.stderr)


if __name__ == '__main__':
    sys.exit(main())
