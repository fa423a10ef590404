# SPDX-License-Identifier: Apache-2.0
"""
Message packages that PyPI does not have, built for the tests with ROS's own generators.

The definitions in test/interfaces are written after the published lists of fields, complete, so
that they are the same on the wire. Packages that can be imported are not built. What is built is
kept in .cache/interfaces, under a hash of the definitions.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEFINITIONS = ROOT / 'test' / 'interfaces'
CACHE = ROOT / '.cache' / 'interfaces'
TYPE_SUPPORTS = ('rosidl_typesupport_fastrtps_c', 'rosidl_typesupport_introspection_c')
LIBRARIES = ('rosidl_generator_c', 'rosidl_generator_py', 'rosidl_typesupport_c', *TYPE_SUPPORTS)
USED = ('builtin_interfaces', 'geometry_msgs', 'sensor_msgs', 'service_msgs', 'std_msgs')


@cache
def make_importable() -> str:
    """
    Build what is missing, and let this process and its children import it.

    :return: why that is not possible, one sentence; '' when it was
    """
    packages = [path.name for path in sorted(DEFINITIONS.iterdir())
                if find_spec(path.name) is None]
    if not packages:
        return ''
    if find_spec('rosidl_generator_py') is None:
        return "ROS's message generators are not installed, so no messages can be built"
    if not shutil.which('gcc') or not shutil.which('g++'):
        return 'there is no C++ compiler to build messages with (apt install g++)'
    if not Path(sysconfig.get_paths()['include'], 'Python.h').is_file():
        return 'there is no Python.h to build messages with (apt install python3-dev)'
    folder = CACHE / _key(packages)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not (folder / 'done').exists():
            _run(sys.executable, __file__, folder, *packages)
            (folder / 'done').touch()
    sys.path.append(str(folder / 'python'))
    paths = filter(None, [os.environ.get('PYTHONPATH'), str(folder / 'python')])
    os.environ['PYTHONPATH'] = os.pathsep.join(paths)
    return ''


def _key(packages: list[str]) -> str:
    digest = hashlib.sha256(f'{sys.version}{sys.prefix}'.encode())
    for path in [Path(__file__), *(path for name in packages for path in _files(name))]:
        digest.update(f'{path.name}\n{path.read_text()}'.encode())
    return digest.hexdigest()[:16]


def _build(folder: Path, packages: list[str]) -> None:
    from ament_index_python import get_package_prefix
    from numpy import get_include

    # The wheels are a complete ROS prefix, but set no path to it.
    os.environ.setdefault('AMENT_PREFIX_PATH', sys.prefix)
    for name in _in_order(packages):
        _generate(name, folder)
    prefix = Path(get_package_prefix('rosidl_runtime_c'))
    includes = [
        folder / 'c', folder / 'introspection', prefix / 'include',
        *(prefix / 'include').iterdir(), sysconfig.get_paths()['include'], get_include()]
    flags = ['-O0', '-w', '-fPIC', *(f'-I{path}' for path in includes)]
    sources = [path for name in packages for place in ('c', 'introspection', 'python')
               for path in sorted((folder / place / name).rglob('*.c')) if '.ep.' not in path.name]
    # C++ is compiled as one file, which reads the headers once.
    cpp = folder / 'c' / 'all.cpp'
    cpp.write_text(''.join(
        f'#include "{path}"\n' for path in sorted((folder / 'c').glob('*/**/*.cpp'))))
    libraries = [
        path for name in _present(packages) for kind in LIBRARIES
        for path in prefix.glob(f'lib/lib{name}__{kind}.so')]
    libraries += [prefix / 'lib' / f'lib{name}.so' for name in (
        'rosidl_runtime_c', 'rosidl_typesupport_c', 'rosidl_typesupport_fastrtps_c',
        'rosidl_typesupport_fastrtps_cpp', 'rosidl_typesupport_introspection_c', 'fastcdr', 'rmw',
        'rcutils')]
    shared = folder / 'python' / 'libtest_interfaces.so'
    search = ['-Wl,-rpath,' + str(prefix / 'lib'), '-Wl,-rpath,' + str(shared.parent)]
    _run('g++', *flags, '-c', '-o', folder / 'c' / 'all.o', cpp)
    _run('gcc', *flags, '-shared', '-o', shared, *sources, folder / 'c' / 'all.o', *libraries,
         '-lstdc++', *search)
    for name in packages:
        # Type supports are looked for by these names, and found where they are loaded already.
        names = [f'lib{name}__{kind}.so' for kind in TYPE_SUPPORTS]
        for soname in names:
            _run('gcc', '-shared', f'-Wl,-soname,{soname}', '-Wl,--no-as-needed', '-o',
                 shared.parent / soname, shared, *search)
        entry, = (folder / 'python' / name).glob('*.ep.*.c')
        module = f"{name}_s__rosidl_typesupport_c{sysconfig.get_config_var('EXT_SUFFIX')}"
        _run('gcc', *flags, '-shared', '-o', entry.parent / module, entry,
             '-Wl,--no-as-needed', shared, *(shared.parent / one for one in names), *search)
    for place in ('c', 'introspection'):
        shutil.rmtree(folder / place)


def _generate(name: str, folder: Path) -> None:
    """Generate C, its type support for Fast DDS, and Python."""
    from ament_index_python import get_package_share_directory
    from rosidl_adapter.msg import convert_msg_to_idl
    from rosidl_adapter.srv import convert_srv_to_idl
    from rosidl_cli.command.helpers import legacy_generator_arguments_file
    from rosidl_generator_c.cli import GenerateC
    from rosidl_generator_py import generate_py
    from rosidl_generator_type_description.cli import HashTypeDescription
    from rosidl_typesupport_c.cli import GenerateCTypesupport
    from rosidl_typesupport_fastrtps_c.cli import GenerateFastRTPSCTypesupport
    from rosidl_typesupport_introspection_c.cli import GenerateIntrospectionCTypesupport

    share = folder / 'share' / name
    convert: dict[str, Callable] = {'.msg': convert_msg_to_idl, '.srv': convert_srv_to_idl}
    files = []
    for path in _files(name):
        relative = path.relative_to(DEFINITIONS / name)
        convert[path.suffix](DEFINITIONS / name, name, relative, share / relative.parent)
        files.append(f"{share}:{relative.with_suffix('.idl')}")
    installed = Path(get_package_share_directory('std_msgs')).parent
    include = [installed / used for used in _present([])] + [folder / 'share']
    hashes = HashTypeDescription('').generate_type_hashes(name, files, include, share)
    GenerateC('').generate(name, files, include, folder / 'c' / name, hashes)
    GenerateFastRTPSCTypesupport('').generate(name, files, include, folder / 'c' / name)
    # Elsewhere: some files go by the names of those that GenerateC writes.
    GenerateIntrospectionCTypesupport('').generate(
        name, files, include, folder / 'introspection' / name)
    GenerateCTypesupport('', typesupport_implementations=list(TYPE_SUPPORTS)).generate(
        name, files, include, folder / 'c' / name)
    python = folder / 'python' / name
    python.mkdir(parents=True, exist_ok=True)
    (python / '__init__.py').touch()
    with legacy_generator_arguments_file(
        package_name=name, interface_files=files, include_paths=include,
        templates_path=Path(get_package_share_directory('rosidl_generator_py')) / 'resource',
        output_path=python,
    ) as arguments:
        generate_py(arguments, ['rosidl_typesupport_c'])


def _files(name: str) -> list[Path]:
    return sorted((DEFINITIONS / name).glob('*/*'))


def _present(packages: list[str]) -> list[str]:
    """Return the packages that are installed and may be used by those that are built."""
    known = [*USED, *(path.name for path in DEFINITIONS.iterdir())]
    return [name for name in known if name not in packages and find_spec(name) is not None]


def _in_order(packages: list[str]) -> list[str]:
    """Sort packages such that each comes after those that its fields are from."""
    def uses(name: str) -> set[str]:
        texts = [path.read_text() for path in _files(name)]
        return {other for other in packages if other != name
                and any(f'{other}/' in text for text in texts)}

    ordered: list[str] = []
    while len(ordered) < len(packages):
        ordered += [name for name in packages
                    if name not in ordered and uses(name) <= set(ordered)]
    return ordered


def _run(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


if __name__ == '__main__':
    _build(Path(sys.argv[1]), sys.argv[2:])
