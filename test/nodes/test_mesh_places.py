# SPDX-License-Identifier: Apache-2.0
"""The places that viewers fetch textured meshes from, as viewers use them."""

import http.client
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from time import monotonic
from urllib.error import HTTPError
from urllib.error import URLError
from urllib.request import Request
from urllib.request import urlopen
from urllib.request import urlretrieve

import numpy as np
import pytest
from disk import full_disk
from textured_models import textured_model

from img2scene_ros.errors import InputError
from img2scene_ros.nodes.mesh_places import SPARE
from img2scene_ros.nodes.mesh_places import MeshFiles
from img2scene_ros.nodes.mesh_places import MeshFolder
from img2scene_ros.nodes.mesh_places import MeshServer
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Texture


@pytest.fixture
def server() -> Iterator[MeshServer]:
    server = MeshServer('127.0.0.1', 0)
    yield server
    server.close()


@pytest.fixture
def uri(server: MeshServer) -> str:
    return MeshFiles(server).uri(textured_model())


def fetch(uri: str, method: str = 'GET', **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and content."""
    request = Request(uri, method=method, headers={
        name.replace('_', '-'): value for name, value in headers.items()})
    try:
        with urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except HTTPError as error:
        return error.code, dict(error.headers), error.read()


def raw(uri: str, lines: str) -> bytes:
    """Send a request as it is; return all that comes back."""
    host, port = re.match(r'http://([\d.]+):(\d+)', uri).groups()
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(lines.encode())
        answer = b''
        while part := connection.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize('kind', ['file', 'http'])
def test_what_viewers_fetch_is_the_mesh_with_its_picture(kind: str, tmp_path: Path) -> None:
    open3d = pytest.importorskip('open3d')
    model = textured_model(3)
    files = MeshFiles(
        MeshFolder(str(tmp_path / 'a b')) if kind == 'file' else MeshServer('127.0.0.1', 0))
    uri = files.uri(model)
    assert uri.startswith(f'{kind}://')
    urlretrieve(uri, tmp_path / 'mesh.dae')
    # The mesh names its texture, which lies beside it.
    texture, = set(re.findall(r'[\w.]+\.png', (tmp_path / 'mesh.dae').read_text()))
    urlretrieve(f"{uri.rpartition('/')[0]}/{texture}", tmp_path / texture)
    files.close()

    loaded = open3d.io.read_triangle_model(str(tmp_path / 'mesh.dae'))
    part, = loaded.meshes
    # Open3D turns what is marked z up into y up; RViz leaves it as it is.
    vertices = np.asarray(part.mesh.vertices)[:, [0, 2, 1]] * (1, -1, 1)
    np.testing.assert_allclose(
        vertices[np.asarray(part.mesh.triangles)], model.vertices[model.faces], atol=1e-6)
    uv = np.asarray(part.mesh.triangle_uvs).reshape(-1, 3, 2)
    np.testing.assert_allclose(
        np.stack([uv[..., 0], 1 - uv[..., 1]], axis=-1), model.texture.uv, atol=1e-5)
    picture = np.asarray(loaded.materials[part.material_idx].albedo_img)[..., :3]
    np.testing.assert_array_equal(picture, model.texture.image, 'as bright as it was')
    normals = np.asarray(part.mesh.vertex_normals)
    assert ((normals * np.asarray(part.mesh.vertices)).sum(axis=1) > 0).all(), 'outwards'


def test_names_tell_the_content(server: MeshServer) -> None:
    files, model = MeshFiles(server), textured_model()
    again = textured_model()
    assert model is not again and files.uri(model) == files.uri(again)
    image = model.texture.image.copy()
    image[0, 0, 0] ^= 1
    others = [
        textured_model(1), textured_model(0, 1), changed(model, vertices=model.vertices * 2),
        changed(model, faces=model.faces[::-1].copy()),
        changed(model, texture=Texture(image, model.texture.uv)),
        changed(model, texture=Texture(model.texture.image, model.texture.uv / 2))]
    assert len({files.uri(one) for one in [model, *others]}) == 7


def changed(model: ObjectModel, **values: object) -> ObjectModel:
    return ObjectModel(**{**model.__dict__, **values})


def test_headers(uri: str) -> None:
    status, headers, content = fetch(uri)
    assert status == 200 and int(headers['Content-Length']) == len(content) > 1000
    assert headers['Content-Type'] == 'model/vnd.collada+xml'
    assert headers['Access-Control-Allow-Origin'] == '*'
    assert 'immutable' in headers['Cache-Control']
    status, headers, _ = fetch(uri.replace('.dae', '.png'))
    assert status == 200 and headers['Content-Type'] == 'image/png'


def test_head_is_get_without_the_content(uri: str) -> None:
    get, head = fetch(uri), fetch(uri, 'HEAD')
    assert head[0] == 200 and head[2] == b''
    for name in ('Content-Length', 'Content-Type', 'ETag', 'Access-Control-Allow-Origin'):
        assert head[1][name] == get[1][name]
    assert fetch(uri + 'x', 'HEAD')[0] == 404


def test_etags(uri: str) -> None:
    tags = [fetch(one)[1]['ETag'] for one in (uri, uri.replace('.dae', '.png'))]
    assert tags[0] != tags[1] and all(re.fullmatch(r'"[^"]+"', tag) for tag in tags)
    for known in (tags[0], f'W/{tags[0]}', f'"other", {tags[0]}', '*'):
        status, headers, content = fetch(uri, If_None_Match=known)
        assert (status, content) == (304, b'') and headers['ETag'] == tags[0]
        assert 'Content-Length' not in headers
    for unknown in ('"other"', tags[1], tags[0][:-2] + '"', ''):
        assert fetch(uri, If_None_Match=unknown)[0] == 200


@pytest.mark.parametrize('path', [
    '/', '/nothing.dae', '/../{name}', '/%2e%2e/{name}', '/%2e%2e%2f{name}', '/./{name}',
    '/etc/passwd', '//etc/passwd', '/../../../../etc/passwd', '/%2e%2e/%2e%2e/etc/passwd',
    '/..%5c..%5cetc%5cpasswd', '/{name}/', '/{name}/..', '/{name}%00', '/{name}.part', '/.{name}',
    'file:///etc/passwd', 'http://elsewhere/{name}'])
def test_nothing_else_is_found(uri: str, path: str) -> None:
    name = uri.rpartition('/')[2]
    request = f'GET {path.format(name=name)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
    status = raw(uri, request).split(b'\r\n')[0]
    assert re.match(rb'HTTP/1.1 40[04] ', status), status
    assert b'root:' not in raw(uri, request)


@pytest.mark.parametrize('method', ['POST', 'PUT', 'DELETE', 'PATCH'])
def test_it_is_read_only(uri: str, method: str) -> None:
    before = fetch(uri)[2]
    assert fetch(uri, method)[0] in (405, 501)
    assert fetch(uri)[2] == before


def test_nonsense_does_not_stop_it(uri: str, capfd: pytest.CaptureFixture) -> None:
    for nonsense in ('\r\n', 'GET\r\n\r\n', '\x00\xff' * 100 + '\r\n\r\n',
                     'GET / HTTP/9.9\r\n\r\n', f"GET /{'a' * 70000} HTTP/1.1\r\n\r\n"):
        raw(uri, nonsense + 'GET / HTTP/1.0\r\n\r\n')
    host, port = re.match(r'http://([\d.]+):(\d+)', uri).groups()
    for _ in range(20):  # hang up before the answer
        with socket.create_connection((host, int(port))) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
            connection.sendall(f"GET /{uri.rpartition('/')[2]} HTTP/1.1\r\n\r\n".encode())
    assert fetch(uri)[0] == 200
    assert capfd.readouterr() == ('', '')


def test_connections_are_kept_and_do_not_hold_up_others(uri: str) -> None:
    address, path = uri[len('http://'):].split('/')
    kept = http.client.HTTPConnection(address, timeout=10)
    for method, name, status in [
            ('GET', path, 200), ('HEAD', path, 200), ('GET', 'nothing', 404), ('GET', path, 200)]:
        kept.request(method, f'/{name}')
        answer = kept.getresponse()
        assert answer.status == status
        answer.read()
        assert not answer.will_close
        socket_used = kept.sock
        assert fetch(uri)[0] == 200, 'while the other one is open'
    assert kept.sock is socket_used
    kept.close()


def test_many_viewers_at_once(uri: str) -> None:
    expected, contents = fetch(uri)[2], []
    threads = [Thread(target=lambda: contents.append(fetch(uri)[2])) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert contents == [expected] * 20


def test_stops_at_once_although_connections_are_open() -> None:
    server = MeshServer('127.0.0.1', 0)
    uri = MeshFiles(server).uri(textured_model())
    address, path = uri[len('http://'):].split('/')
    kept = http.client.HTTPConnection(address, timeout=10)
    kept.request('GET', f'/{path}')
    kept.getresponse().read()
    silent = socket.create_connection(('127.0.0.1', int(address.split(':')[1])), timeout=10)
    start = monotonic()
    server.close()
    with suppress(ConnectionResetError):  # one that was not accepted yet is reset
        assert silent.recv(1) == b'', 'is closed'
    with pytest.raises((OSError, http.client.HTTPException)):
        kept.request('GET', f'/{path}')
        kept.getresponse()
    assert monotonic() - start < 10, 'did not wait for them'
    with pytest.raises(URLError):
        urlopen(uri, timeout=10)
    MeshServer('127.0.0.1', int(address.split(':')[1])).close()  # the port is free again


@pytest.mark.parametrize('host, port', [
    ('127.0.0.1', None), ('192.0.2.1', 0), ('no such host', 0)])
def test_address_that_cannot_be_listened_on(host: str, port: int | None) -> None:
    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        other.listen()
        port = other.getsockname()[1] if port is None else port
        with pytest.raises(InputError, match=f"serve meshes on '{host}:{port}' .*http_port"):
            MeshServer(host, port)


def test_on_all_addresses_viewers_get_the_hosts_name() -> None:
    server = MeshServer('0.0.0.0', 0)
    assert re.fullmatch(rf'http://{re.escape(socket.gethostname())}:\d+', server.base_uri)
    server.close()


@pytest.mark.parametrize('kind', ['file', 'http'])
def test_old_meshes_are_dropped(kind: str, tmp_path: Path) -> None:
    place = MeshFolder(str(tmp_path)) if kind == 'file' else MeshServer('127.0.0.1', 0)
    files = MeshFiles(place)
    uris = [files.uri(textured_model(seed, 1)) for seed in range(SPARE + 10)]
    files.keep({uris[0], uris[-1]})
    there = []
    for uri in uris:
        try:
            with urlopen(uri, timeout=10), urlopen(uri.replace('.dae', '.png'), timeout=10):
                there.append(uri)
        except URLError:
            pass
    assert there == [uris[0], *uris[-SPARE - 1:]]
    assert files.uri(textured_model(1, 1)) == uris[1], 'comes back when it is shown again'
    urlopen(uris[1], timeout=10).close()
    files.close()


def test_folders_are_private_and_leave_nothing(tmp_path: Path) -> None:
    places = [MeshFolder(str(tmp_path / 'new')) for _ in range(2)]
    assert places[0].folder != places[1].folder
    assert places[0].folder.stat().st_mode & 0o777 == 0o700
    files = [MeshFiles(place) for place in places]
    for one in files:
        one.uri(textured_model())
    files[0].close()
    assert not places[0].folder.exists()
    assert len(list(places[1].folder.iterdir())) == 2
    files[1].close()
    assert not list((tmp_path / 'new').iterdir())


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match=f'{tmp_path}/file/x.*markers.mesh_directory'):
        MeshFolder(str(tmp_path / 'file' / 'x'))


def test_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    place, model = MeshFolder(str(tmp_path)), textured_model()
    files = MeshFiles(place)
    for size in (0, 100, 10000):  # no room for the texture, or for the mesh
        with full_disk(size), pytest.raises(InputError, match=f'cannot write .*{place.folder}'):
            files.uri(model)
        assert not list(place.folder.iterdir())
    urlopen(files.uri(model)).close()
    files.close()
