# SPDX-License-Identifier: Apache-2.0
"""The options of rendered data and of evaluations; light, for the command line lists them."""

from dataclasses import dataclass

from img2scene_ros.options import Options
from img2scene_ros.options import option

SPLITS = ('train', 'test')


@dataclass(frozen=True)
class RenderOptions(Options):
    """What to render; data sets of the same options are the same, byte by byte."""

    kind: str = option(
        'crops', 'What a sample is: the crop of an object or a whole picture',
        choices=('crops', 'scenes'))
    samples: int = option(1000, 'Number of samples', low=1)
    split: str = option('train', 'The shapes to use', choices=SPLITS)
    seed: int = option(0, 'Seed of the scenes', low=0)
    test_share: float = option(
        0.15, 'Share of the shapes of every category that are kept for testing', low=0.0, high=0.9)
    split_seed: int = option(
        0, 'Seed of the split; keep it the same for training and test data', low=0)
    size: int = option(112, 'Pixels of a side of a crop', low=32, high=512)
    width: int = option(320, 'Pixels of the width of a picture; its height is 3/4 of it',
                        low=64, high=1920)
    floor_share: float = option(
        0.5, 'Share of scenes with furniture on the floor, the rest is tabletops',
        low=0.0, high=1.0)
    box_jitter: float = option(
        0.03, "Standard deviation of the boxes' edges, in sides, as detectors err", low=0.0,
        high=0.2)
    stretch: float = option(
        0.08, 'Most that each axis of a shape is stretched or shrunk by; more of it makes more '
        'shapes of few', low=0.0, high=0.8)
    sky_rays: int = option(4, 'Rays per pixel for soft shadows; 0 is no shadows', low=0, high=64)
    shard_samples: int = option(250, 'Samples of a shard', low=1, high=10000)


@dataclass(frozen=True)
class ShapeOptions(Options):
    """Which shapes `img2scene evaluate shapes` shows, and from where."""

    split: str = option(
        'all', 'The shapes to show: all, or those that `img2scene render` takes for train or '
        'test, by the split that the weights record', choices=('all', *SPLITS))
    views: int = option(4, 'Views per shape', low=1)
    seed: int = option(0, 'Seed of the views', low=0)
    box_jitter: float = option(
        0.0, "Standard deviation of the boxes' edges, in sides, as detectors err", low=0.0,
        high=0.2)
    size: int = option(
        112, 'Pixels of a side of the crops, which networks get at the size they know', low=32,
        high=512)
    categories: tuple = option((), 'Only these categories; none is all')


@dataclass(frozen=True)
class SceneOptions(Options):
    """Which scenes `img2scene evaluate scenes` takes, and what the pipeline gets of them."""

    samples: int = option(100, 'Most scenes, spread over the data set', low=1)
    seed: int = option(0, 'Seed of the depth noise', low=0)
    perfect_boxes: bool = option(
        False, 'Reconstruct from the true boxes and masks instead of detecting')
    known_plane: bool = option(
        False, 'Give it the true plane that objects stand on, as a robot does through TF')
