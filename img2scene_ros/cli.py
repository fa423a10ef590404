"""The command line: img2scene reconstruct | demo | render | train | evaluate | ..."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING
from typing import Any
from typing import NoReturn

from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.errors import OptionError

if TYPE_CHECKING:  # heavy, and not needed for --help
    from rich.console import Console

    from img2scene_ros.frame import Frame
    from img2scene_ros.learning.evaluation import Candidate
    from img2scene_ros.learning.evaluation_report import Report
    from img2scene_ros.learning.pix3d import Pix3dPicture
    from img2scene_ros.learning.pix3d import Skipped
    from img2scene_ros.pipeline import Pipeline
    from img2scene_ros.scene.export import ExportOptions

DEFAULT_OUT = Path('out')
WITHOUT_DEPTH = {'detector': 'auto', 'reconstructor': 'voxel'}  # defaults for photos
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
    _add_prepare_pix3d(commands)
    _add_render(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_train_detector(commands)
    doctor = commands.add_parser(
        'doctor', help='show versions, what is missing and how to mend it',
        description='Show versions, what is missing and how to mend it; the exit code is 1 when '
        'img2scene cannot work.')
    doctor.set_defaults(run=_doctor)
    return parser


def _add_reconstruct(commands: Any) -> None:
    parser = commands.add_parser(
        'reconstruct', help='rebuild the objects in frames or pictures',
        description='Rebuild the objects in frames or photos. Each input gets an export '
        'directory with scene.glb, scene.png, overlay.png, a mesh per object and objects.json. '
        f'Where there is no depth image, {_names(WITHOUT_DEPTH)} are the defaults.')
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
    parser.add_argument(
        '--set', action='append', default=[], metavar='NAME=VALUE', dest='settings',
        help='set an option, by the name of its ROS parameter (may be repeated)')
    parser.set_defaults(run=_bench)


def _add_prepare_pix3d(commands: Any) -> None:
    parser = commands.add_parser(
        'prepare-pix3d', help='make training data of the Pix3D data set',
        description='Make training data of the Pix3D data set: square pictures and masks around '
        'the objects, voxels, and their cameras in metadata.json. What cannot be used is listed, '
        'also in skipped.json. An interrupted run goes on where it ended.')
    parser.add_argument(
        'raw', type=Path, metavar='RAW', help='the data set: a folder with pix3d.json')
    parser.add_argument('out', type=Path, metavar='OUT', help='where to write')
    parser.add_argument(
        '--size', type=_whole_number, default=256, metavar='PX',
        help='side of the stored pictures (default: %(default)s)')
    parser.add_argument(
        '--jobs', type=_whole_number, default=os.cpu_count(), metavar='N',
        help='processes (default: one per core, %(default)s)')
    parser.add_argument(
        '--check', type=_whole_number, nargs='?', const=12, metavar='N',
        help='also draw N pictures, spread over all, with their masks and voxels into OUT/check '
        '(default: %(const)s)')
    parser.set_defaults(run=_prepare_pix3d)


def _add_render(commands: Any) -> None:
    parser = commands.add_parser(
        'render', help='make training data by rendering random scenes',
        description='Make training data by rendering random scenes of shapes: crops of objects '
        'with mask, depth and voxels, or whole pictures. An interrupted run goes on where it '
        'ended; the same seed and options give the same files.')
    parser.add_argument(
        'shapes', type=Path, metavar='SHAPES',
        help='a folder of CATEGORY/SHAPE/voxel.mat and model.ply, as in Pix3D; household objects '
        'drawn at random are added')
    parser.add_argument('out', type=Path, metavar='OUT', help='where to write')
    parser.add_argument(
        '--meshes', type=Path, metavar='DIR', help='also use the closed, metric GLB meshes in DIR')
    parser.add_argument(
        '--kind', default='crops', help='crops (default) or scenes')
    parser.add_argument(
        '--samples', type=int, default=1000, metavar='N', help='default: %(default)s')
    parser.add_argument(
        '--split', default='train', help='shapes to train (default) or to test with')
    parser.add_argument(
        '--seed', type=int, default=0, help='of the scenes (default: %(default)s)')
    for name, kind, help_ in (
            ('test-share', float, 'share of the shapes that is kept for testing'),
            ('split-seed', int, 'of the split; the same for training and test data'),
            ('size', int, 'pixels of the side of a crop'),
            ('width', int, 'pixels of the width of a picture'),
            ('floor-share', float, 'share of scenes with furniture, the rest is tabletops'),
            ('box-jitter', float, "standard deviation of the boxes' edges, in sides"),
            ('stretch', float, 'most that each axis of a shape is stretched or shrunk by'),
            ('sky-rays', int, 'rays per pixel for soft shadows; 0 is no shadows'),
            ('shard-samples', int, 'samples per file')):
        parser.add_argument(
            f'--{name}', type=kind, default=argparse.SUPPRESS, metavar='X', help=help_)
    parser.add_argument(
        '--jobs', type=_whole_number, default=os.cpu_count(), metavar='N',
        help='processes (default: one per core, %(default)s)')
    parser.add_argument(
        '--check', action='store_true', help='also draw some samples into OUT/check.png')
    parser.set_defaults(run=_render)


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        'train', help='train a voxel network on rendered crops',
        description='Train a voxel network on rendered crops. OUT gets the best weights '
        '(model.safetensors, config.json), a log and what it takes to resume. Several GPUs: '
        'torchrun --nproc-per-node N -m img2scene_ros.cli train ...')
    _add_training_arguments(
        parser, 'crops', 'img2scene render', 'those of the compact network, see config/train')
    parser.add_argument(
        '--minutes', type=float, metavar='M', help='end after so long, ready to be resumed')
    parser.set_defaults(run=_train)


def _add_train_detector(commands: Any) -> None:
    parser = commands.add_parser(
        'train-detector', help='train a compact detector on rendered scenes',
        description="Train a compact detector of the DETR family on rendered scenes. OUT gets the "
        "best weights as a checkpoint folder of transformers, which the detector 'detr' loads "
        '(--set detr.checkpoint=OUT), a log and what it takes to resume.')
    _add_training_arguments(
        parser, 'scenes', 'img2scene render --kind scenes', 'those of config/train/detector.yaml')
    parser.add_argument(
        '--minutes', type=float, metavar='M',
        help='let the whole training last so long, earlier sessions included: learning rate and '
        'picture size follow the clock, not the steps')
    parser.set_defaults(run=_train_detector)


def _add_training_arguments(
    parser: argparse.ArgumentParser, samples: str, made_by: str, default: str,
) -> None:
    """Add what all trainings take; `samples` of `made_by` are what they learn from."""
    parser.add_argument(
        '--config', type=Path, metavar='FILE.yaml', help=f'options (default: {default})')
    parser.add_argument(
        '--set', action='append', default=[], metavar='NAME=VALUE', dest='settings',
        help='set an option of the config, sections with a dot: model.width=64 (may be repeated)')
    parser.add_argument(
        '--data', type=Path, required=True, nargs='+', metavar='DIR',
        help=f'{samples} of `{made_by}`')
    parser.add_argument(
        '--validation', type=Path, metavar='DIR',
        help=f'{samples} of other shapes (--split test); without, the newest weights are saved, '
        'not the best')
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='folder of the run')
    parser.add_argument(
        '--resume', action='store_true', help='go on with the run in OUT, with the same options')


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        'evaluate', help='score networks on shapes, photos and scenes',
        description='Score networks beside simple baselines: tables in Markdown and JSON, and a '
        'sheet of pictures.')
    kinds = parser.add_subparsers(dest='kind', required=True, metavar='WHAT')
    shapes = kinds.add_parser(
        'shapes', help='voxel networks on rendered views of shapes',
        description='Render views of every shape of a folder and score voxel networks on them.')
    shapes.add_argument(
        'folder', type=Path, metavar='FOLDER',
        help='CATEGORY/SHAPE/voxel.mat and model.ply, as in Pix3D')
    _add_weights(shapes)
    shapes.add_argument(
        '--split', default='all', help='all shapes (default), or those that `img2scene render` '
        'takes for train or test, by the split that the weights record')
    shapes.add_argument(
        '--views', type=int, default=4, metavar='N', help='per shape (default: %(default)s)')
    shapes.add_argument(
        '--seed', type=int, default=0, help='of the views (default: %(default)s)')
    shapes.add_argument(
        '--box-jitter', type=float, default=0.0, metavar='X',
        help="standard deviation of the boxes' edges, in sides (default: %(default)s)")
    shapes.add_argument(
        '--size', type=int, default=112, metavar='PX',
        help='side of the crops (default: %(default)s, as in the reconstructor)')
    shapes.add_argument(
        '--categories', nargs='+', default=(), metavar='NAME', help='only these')
    shapes.set_defaults(run=_evaluate_shapes)
    pix3d = kinds.add_parser(
        'pix3d', help="voxel networks on photos, by Pix3D's protocol",
        description="Score voxel networks on Pix3D's photos by its own protocol. The annotated "
        "pose takes their answers into the model's axes, so it is the shape that is compared.")
    pix3d.add_argument(
        'prepared', type=Path, metavar='PREPARED', help='what `img2scene prepare-pix3d` wrote')
    _add_weights(pix3d)
    pix3d.add_argument(
        '--all', action='store_true', dest='every',
        help='also pictures that are truncated or occluded, which the protocol leaves out')
    pix3d.set_defaults(run=_evaluate_pix3d)
    scenes = kinds.add_parser(
        'scenes', help='detector and whole pipeline on rendered scenes',
        description='Run the pipeline on rendered scenes, with depth and without, and compare '
        'boxes, places, sizes and solids with the truth.')
    scenes.add_argument(
        'folder', type=Path, metavar='DIR', help='what `img2scene render --kind scenes` wrote')
    scenes.add_argument(
        '--shapes', type=Path, metavar='DIR', help='the folder of shapes that they were made of')
    scenes.add_argument(
        '--meshes', type=Path, metavar='DIR', help='the folder of meshes that they were made of')
    scenes.add_argument('--detector', metavar='NAME', help='short for --set detector=NAME')
    scenes.add_argument(
        '--reconstructor', metavar='NAME', help='short for --set reconstructor=NAME')
    scenes.add_argument(
        '--set', action='append', default=[], metavar='NAME=VALUE', dest='settings',
        help='set an option, by the name of its ROS parameter (may be repeated)')
    scenes.add_argument(
        '--perfect-boxes', action='store_true',
        help='reconstruct from the true boxes and masks instead of detecting')
    scenes.add_argument(
        '--known-plane', action='store_true',
        help='tell the true plane that objects stand on, as a robot does through TF')
    scenes.add_argument(
        '--samples', type=int, default=100, metavar='N',
        help='most scenes, spread over all (default: %(default)s)')
    scenes.add_argument(
        '--seed', type=int, default=0, help='of the depth noise (default: %(default)s)')
    scenes.set_defaults(run=_evaluate_scenes)
    for kind in (shapes, pix3d, scenes):
        kind.add_argument('--json', type=Path, metavar='FILE', help='write all values')
        kind.add_argument(
            '--markdown', type=Path, metavar='FILE', help='write the tables instead of printing')
        kind.add_argument(
            '--sheet', type=Path, metavar='FILE.png', help='draw inputs, truths and predictions')


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--weights', type=Path, action='append', metavar='DIR',
        help='folder of a network (default: the bundled one); may be repeated')


def _whole_number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1")
    return int(text)


def _prepare_pix3d(chosen: argparse.Namespace) -> int:
    from img2scene_ros.learning.pix3d import load_prepared
    from img2scene_ros.learning.pix3d import prepare_pix3d

    console = _console()
    skipped = prepare_pix3d(chosen.raw, chosen.out, chosen.size, chosen.jobs, console)
    pictures = load_prepared(chosen.out)
    _print_prepared(console, pictures, skipped)
    console.print(f'written: {chosen.out}/metadata.json, images, masks, voxels')
    if chosen.check:
        from img2scene_ros.learning.pix3d_check import write_sheets

        write_sheets(pictures, chosen.out / 'check', chosen.check, console)
        console.print(f'written: {chosen.out}/check')
    return 0


def _render(chosen: argparse.Namespace) -> int:
    from img2scene_ros.learning.rendered import render_dataset
    from img2scene_ros.learning.synthetic import RenderOptions

    options = RenderOptions(**{
        name: value for name, value in vars(chosen).items()
        if name in RenderOptions.__dataclass_fields__})
    console = _console()
    with _progress(console, 'rendering') as progress:
        library = render_dataset(
            chosen.shapes, chosen.meshes, chosen.out, options, chosen.jobs, progress)
    for reason in library.left_out:
        console.print(f'left out: {reason}')
    size = sum(path.stat().st_size for path in chosen.out.glob('*.npz'))
    console.print(f'written: {chosen.out}, {options.samples} {options.kind} of '
                  f'{len(library.names)} shapes, {size / options.samples / 1000:.1f} kB each')
    if chosen.check:
        from img2scene_ros.learning.sheets import draw_sheet

        draw_sheet(chosen.out, chosen.out / 'check.png')
        console.print(f'written: {chosen.out}/check.png')
    return 0


def _train(chosen: argparse.Namespace) -> int:
    from img2scene_ros.learning.dataset import open_samples
    from img2scene_ros.learning.training import train
    from img2scene_ros.learning.training_config import read_config

    config = read_config(chosen.config, chosen.settings)
    samples = open_samples(*chosen.data)
    validation = open_samples(chosen.validation) if chosen.validation else None
    run = train(config, samples, chosen.out, validation, chosen.resume, chosen.minutes)
    if os.environ.get('RANK', '0') != '0':  # torchrun's first process tells it for all
        return 0
    score = f', mean IoU {run.best:.3f}' if validation else ''
    print(f'written: {chosen.out}/model.safetensors, config.json, log.jsonl '
          f'({run.step} of {config.training.steps} steps{score})')
    return 0


def _train_detector(chosen: argparse.Namespace) -> int:
    from img2scene_ros.learning.detector_config import read_detector_config
    from img2scene_ros.learning.detector_data import open_pictures
    from img2scene_ros.learning.detector_training import train_detector

    config = read_detector_config(chosen.config, chosen.settings)
    pictures, labels = open_pictures(*chosen.data)
    validation = open_pictures(chosen.validation)[0] if chosen.validation else None
    run = train_detector(
        config, pictures, labels, chosen.out, validation, chosen.resume, chosen.minutes)
    score = f', AP50 {run.best:.3f}' if validation else ''
    print(f'written: {chosen.out}/model.safetensors, config.json, preprocessor_config.json, '
          f'log.jsonl ({run.step} steps, {run.seconds / 60:.0f} minutes{score})')
    return 0


def _evaluate_shapes(chosen: argparse.Namespace) -> int:
    from img2scene_ros.learning.evaluation_shapes import ShapeOptions
    from img2scene_ros.learning.evaluation_shapes import evaluate_shapes

    options = ShapeOptions(chosen.split, chosen.views, chosen.seed, chosen.box_jitter,
                           chosen.size, tuple(chosen.categories))
    return _evaluate(chosen, lambda progress: evaluate_shapes(
        chosen.folder, _candidates(chosen), options, progress))


def _evaluate_pix3d(chosen: argparse.Namespace) -> int:
    from img2scene_ros.learning.evaluation_pix3d import evaluate_pix3d

    return _evaluate(chosen, lambda progress: evaluate_pix3d(
        chosen.prepared, _candidates(chosen), progress, chosen.every))


def _evaluate_scenes(chosen: argparse.Namespace) -> int:
    from img2scene_ros.learning.evaluation_scenes import SceneOptions
    from img2scene_ros.learning.evaluation_scenes import evaluate_scenes
    from img2scene_ros.learning.samples import SceneSamples
    from img2scene_ros.learning.shapes import Library
    from img2scene_ros.settings import read_assignments

    settings = read_assignments(chosen.settings)
    for name in ('detector', 'reconstructor'):
        if getattr(chosen, name) is not None:
            settings[name] = getattr(chosen, name)
    options = SceneOptions(
        chosen.samples, chosen.seed, chosen.perfect_boxes, chosen.known_plane)
    return _evaluate(chosen, lambda progress: evaluate_scenes(
        SceneSamples(chosen.folder), Library(chosen.shapes, chosen.meshes, {}), settings, options,
        progress))


def _candidates(chosen: argparse.Namespace) -> list['Candidate']:
    from img2scene_ros.learning.evaluation import load_candidates
    from img2scene_ros.weights import bundled

    return load_candidates(chosen.weights or [bundled('voxel')])


def _evaluate(
    chosen: argparse.Namespace,
    evaluate: Callable[[Callable[[int, int], None]], 'Report'],
) -> int:
    """Evaluate with a progress bar; print the tables, or write what is wanted."""
    from rich.console import Console

    from img2scene_ros.learning.evaluation_report import write_report

    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    with _progress(console, 'evaluating') as progress:
        report = evaluate(progress)
    for reason in report.left_out:
        console.print(f'left out: {reason}')
    if chosen.markdown is None:
        print(report.markdown)
    for path in write_report(report, chosen.json, chosen.markdown, chosen.sheet):
        console.print(f'written: {path}')
    return 0


@contextmanager
def _progress(
    console: 'Console', what: str, is_shown: bool = True,
) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal; yield what takes the numbers of what is done and of all."""
    from rich.progress import BarColumn
    from rich.progress import MofNCompleteColumn
    from rich.progress import Progress
    from rich.progress import TimeElapsedColumn
    from rich.progress import TimeRemainingColumn

    with Progress(what, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                  TimeRemainingColumn(), console=console,
                  disable=not (console.is_terminal and is_shown)) as bar:
        task = bar.add_task('', total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_prepared(
    console: 'Console', pictures: Sequence['Pix3dPicture'], skipped: Sequence['Skipped'],
) -> None:
    from rich import box
    from rich.table import Table

    for item in skipped:
        console.print(f"left out: entry {item.index} {item.image}: {item.reason}")
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column('category')
    for heading in ('pictures', 'shapes', 'left out'):
        table.add_column(heading, justify='right')
    for category in sorted({item.category for item in [*pictures, *skipped]}):
        kept = [item for item in pictures if item.category == category]
        table.add_row(
            category or '(none)', str(len(kept)), str(len({item.voxels for item in kept})),
            str(sum(item.category == category for item in skipped)))
    console.print(table)


def _bench(chosen: argparse.Namespace) -> int:
    from img2scene_ros.bench import bench
    from img2scene_ros.settings import read_assignments

    print(bench(_inputs(chosen.frames), read_assignments(chosen.settings)))
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from img2scene_ros.doctor import run_doctor

    return run_doctor()


def _demo(chosen: argparse.Namespace) -> int:
    try:
        from img2scene_ros.nodes.demo import BUNDLED_PICTURE
        from img2scene_ros.nodes.demo import bundled_frames
        from img2scene_ros.nodes.demo import run_demo
        from img2scene_ros.nodes.demo import run_picture_demo
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the demo runs the ROS nodes and needs the Python package '{error.name}': source "
            'your ROS 2 installation (source /opt/ros/<distro>/setup.bash) or use `make demo`, '
            'which brings its own; `img2scene reconstruct` works without') from error
    run_demo(chosen.frames, chosen.out)
    _print_objects(_console(), chosen.out)
    if chosen.frames is None:
        out = chosen.out.with_name(f'{chosen.out.name}_picture')
        if run_picture_demo(bundled_frames(BUNDLED_PICTURE), out):
            _print_objects(_console(), out)
    return 0


def _reconstruct(chosen: argparse.Namespace) -> int:
    from img2scene_ros.pipeline import Pipeline
    from img2scene_ros.pipeline import parse_settings
    from img2scene_ros.scene.export import ExportOptions
    from img2scene_ros.settings import read_assignments
    from img2scene_ros.settings import read_parameter_file

    settings = read_parameter_file(chosen.params) if chosen.params else {}
    settings |= read_assignments(chosen.settings)
    if chosen.formats is not None:
        settings |= read_assignments([f'export.formats={chosen.formats}'])
    for name in ('detector', 'reconstructor'):
        if getattr(chosen, name) is not None:
            settings[name] = getattr(chosen, name)
    inputs = _inputs(chosen.color)
    if chosen.depth and len(inputs) > 1:
        raise OptionError('--depth belongs to one picture; put several into frame folders')
    export_options = parse_settings(settings)[1].get('export', ExportOptions())
    console = _console()
    start = perf_counter()
    pipelines = {
        has_depth: Pipeline(*parse_settings(settings if has_depth else WITHOUT_DEPTH | settings))
        for has_depth in {_has_depth(path, chosen) for path in inputs}}
    console.print(f'ready after {perf_counter() - start:.2f} s')
    failed = False
    for source, folder in _with_progress(console, _folders(inputs, chosen.out)):
        try:
            _reconstruct_one(
                pipelines[_has_depth(source, chosen)], source, folder, chosen, export_options,
                console, is_alone=len(inputs) == 1)
        except Img2SceneError as error:
            if len(inputs) == 1:
                raise
            _complain(f'{source}: {error}')
            failed = True
    return 1 if failed else 0


def _has_depth(source: Path, chosen: argparse.Namespace) -> bool:
    return bool(chosen.depth) or (source / 'depth.png').is_file()


def _reconstruct_one(
    pipeline: 'Pipeline', source: Path, folder: Path, chosen: argparse.Namespace,
    export_options: 'ExportOptions', console: 'Console', is_alone: bool,
) -> None:
    """
    Rebuild what one input shows, and print what was found, assumed, and how long it took.

    :param is_alone: there is no bar for several inputs; one for the objects is shown
    """
    from img2scene_ros.scene.export import export_scene

    start = perf_counter()
    frame, remarks = _loaded(source, chosen)
    pipeline.restart()
    loaded = perf_counter()
    with _progress(console, 'Rebuilding objects', is_shown=is_alone) as progress:
        scene = pipeline.run(frame, progress)
    found = perf_counter()
    export_scene(folder, scene, export_options)
    times = {'read': loaded - start, **scene.timing, 'export': perf_counter() - found}
    if pipeline.detector_status:  # why is in the log
        remarks.append(f"detector: {pipeline.detector_status.split(', because')[0]}")
    if not scene.objects:
        remarks.append(_nothing_found(pipeline))
    remarks += [f'note: {item.id} {item.detection.label}: {item.note}'
                for item in scene.objects if item.note]
    _print_objects(console, folder, times, remarks)


def _loaded(source: Path, chosen: argparse.Namespace) -> tuple['Frame', list[str]]:
    """Read an input; say what was assumed about a photo."""
    from img2scene_ros.frame import load_frame
    from img2scene_ros.photo import load_photo

    if source.is_dir() or chosen.depth:
        return load_frame(
            source, chosen.depth, chosen.camera, chosen.field_of_view or 60.0), []
    photo = load_photo(source, chosen.camera, chosen.field_of_view)
    remarks = [f'camera: {photo.camera}'] + ([f'photo: {photo.resized}'] if photo.resized else [])
    return photo.frame, remarks


def _nothing_found(pipeline: 'Pipeline') -> str:
    if pipeline.options.detector not in ('auto', 'detr'):
        return 'no object was found'
    return ('no object was found: lower --set detr.score_threshold=0.1, or take a stronger '
            'detector with --set detr.checkpoint=OWNER/NAME of the Hugging Face Hub (the weights '
            'that come with the package know few things)')


def _times(seconds: dict[str, float], objects: int) -> str:
    """Return one line: the time of each stage, and of all."""
    parts = [f'{stage} {value:.2f} s' for stage, value in seconds.items()]
    if objects and 'reconstruct' in seconds:
        each = seconds['reconstruct'] / objects
        parts[list(seconds).index('reconstruct')] += f', {each:.2f} s each'
    return f"{'; '.join(parts)}; together {sum(seconds.values()):.2f} s"


def _names(settings: dict[str, str]) -> str:
    return ' and '.join(f'{name}={value}' for name, value in settings.items())


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


def _print_objects(
    console: 'Console', folder: Path, times: dict[str, float] | None = None,
    remarks: Sequence[str] = (),
) -> None:
    """
    Print what an export directory holds.

    :param times: seconds of each stage; None takes those in objects.json
    :param remarks: further lines
    """
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
    count = len(summary['objects'])
    console.print(f"{count} object{'' if count == 1 else 's'} "
                  f"({_times(times or summary['timing_s'], count)})")
    for remark in remarks:
        console.print(remark)
    console.print(f'written: {folder}/scene.png, scene.glb, objects.json, ...')


def _millimetres(metres: Sequence[float], width: int) -> str:
    return ' '.join(f'{1000 * value:{width}.0f}' for value in metres)


def _complain(sentence: str) -> None:
    print(f'img2scene: error: {sentence}', file=sys.stderr)


if __name__ == '__main__':
    sys.exit(main())
