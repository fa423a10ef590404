# SPDX-License-Identifier: Apache-2.0
"""Backends by name: the built-in ones, and those that other packages bring."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from img2scene_ros import detection
from img2scene_ros import registry
from img2scene_ros.detection.detr import DetrDetector
from img2scene_ros.detection.tabletop import TabletopDetector
from img2scene_ros.errors import OptionError
from img2scene_ros.options import Options


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Forget what is known of folders and entry points, before and after."""
    def forget() -> None:
        registry._modules.cache_clear()
        registry._of_other_packages.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty folder on Python's path, as an installation uses it."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith('acme')]:
        del sys.modules[name]


def install(site: Path, entry_points: str, package: str = 'acme-vision') -> None:
    """Write what pip writes for a package that declares entry points."""
    (site / 'acme_vision.py').write_text('class AcmeDetector:\n    pass\n')
    info = site / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n')
    (info / 'entry_points.txt').write_text(entry_points)


def test_finds_the_built_in_detectors():
    assert registry.backend('detectors', 'detr') is DetrDetector
    assert registry.backend('detectors', 'tabletop') is TabletopDetector


def test_finds_a_module_that_is_put_into_the_folder(tmp_path, monkeypatch):
    (tmp_path / 'blobs.py').write_text('class Blobs:\n    pass\n\n\nBACKEND = Blobs\n')
    (tmp_path / 'helpers.py').write_text('RADIUS = 3\n')
    monkeypatch.setattr(detection, '__path__', [*detection.__path__, str(tmp_path)])
    found = registry.backends('detectors')
    assert found['blobs'].__name__ == 'Blobs'
    assert 'helpers' not in found
    assert {'detr', 'tabletop'} <= set(found)
    for name in ('blobs', 'helpers'):
        del sys.modules[f'{detection.__name__}.{name}']


def test_finds_the_detector_of_another_package(site):
    install(site, '[img2scene.detectors]\nacme = acme_vision:AcmeDetector\n')
    assert registry.backend('detectors', 'acme').__module__ == 'acme_vision'
    assert 'acme' not in registry.backends('reconstructors')


def test_another_package_replaces_no_built_in_detector(site, caplog):
    install(site, '[img2scene.detectors]\ndetr = acme_vision:AcmeDetector\n')
    assert registry.backend('detectors', 'detr') is DetrDetector
    assert "'detr' of the package 'acme-vision'" in caplog.text


def test_of_two_packages_with_one_name_the_second_is_named(site, caplog):
    for package in ('acme-vision', 'acme-robots'):
        install(site, '[img2scene.detectors]\nacme = acme_vision:AcmeDetector\n', package)
    assert registry.backend('detectors', 'acme').__name__ == 'AcmeDetector'
    assert len(caplog.records) == 1 and "'acme' of the package 'acme-" in caplog.text


@pytest.mark.parametrize('target', ['acme_vision:Nothing', 'acme_missing:AcmeDetector'])
def test_a_broken_package_is_named_and_harms_no_other_backend(site, target, caplog):
    install(site, f'[img2scene.detectors]\nacme = {target}\n')
    assert registry.backend('detectors', 'tabletop') is TabletopDetector
    assert "'acme' of the package 'acme-vision'" in caplog.text
    with pytest.raises(OptionError, match="'acme'.*detectors"):
        registry.backend('detectors', 'acme')
    assert len(caplog.records) == 1, 'entry points are read once'


def test_names_what_there_is_when_the_name_is_unknown():
    with pytest.raises(OptionError, match="'yolo'.*detectors.*detr.*tabletop"):
        registry.backend('detectors', 'yolo')


@pytest.mark.parametrize('group', registry.FOLDERS)
def test_every_built_in_backend_declares_options_with_a_description(group):
    for name, backend in registry.backends(group).items():
        assert issubclass(backend.Options, Options), name
        assert backend.Options()
        for field in dataclasses.fields(backend.Options):
            assert field.metadata['description'], f'{name}.{field.name}'
