# SPDX-License-Identifier: Apache-2.0
"""Links between the documents, and the files that they name, exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md'), *ROOT.glob('data/*/README.md'),
    *ROOT.glob('img2scene_ros/weights/*/README.md')]


def anchors(path: Path) -> set[str]:
    """Return what GitHub makes of a document's headings."""
    headings = re.findall(r'^#+ (.+)$', path.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r'\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)', document.read_text())
    for place, anchor in links:
        target = document.parent / place if place else document
        assert target.exists(), place
        assert not anchor or anchor in anchors(target), f'{place}#{anchor}'


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_and_tests_of_commands_exist(document: Path) -> None:
    named = re.findall(r'\b(?:benchmarks|test|scripts)/[\w/]+\.(?:py|sh)', document.read_text())
    for path in named:
        assert (ROOT / path).is_file(), path


def test_every_benchmark_is_in_the_document_of_figures() -> None:
    text = (ROOT / 'docs/benchmarks.md').read_text()
    scripts = {path.name for path in (ROOT / 'benchmarks').glob('*.py')
               if "__name__ == '__main__'" in path.read_text()}
    assert scripts and {name for name in scripts if f'benchmarks/{name}' not in text} == set()


def test_every_module_is_in_a_table_of_the_architecture() -> None:
    text = (ROOT / 'docs/architecture.md').read_text()
    named = set(re.findall(r'^\| `(?:\w+/)?(\w+)\.py` \|', text, re.MULTILINE))
    modules = {path.stem for path in (ROOT / 'img2scene_ros').rglob('*.py')
               if not path.stem.startswith('__')}
    assert named == modules
