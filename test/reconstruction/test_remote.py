# SPDX-License-Identifier: Apache-2.0
"""`remote` against real servers on loopback: honest, slow, failing, lying and endless ones."""

import io
import json
import logging
import socket
import struct
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import trimesh
from photographed import PLACE
from photographed import bars
from photographed import sighting
from photographed import true_points
from photographed import turned
from photographed import with_mask
from PIL import Image
from rebuilt import assert_closed
from rebuilt import distance
from rebuilt import surface_points

from img2scene_ros.errors import OptionError
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.reconstruction.remote import RemoteOptions
from img2scene_ros.reconstruction.remote import RemoteReconstructor
from img2scene_ros.types import ObjectModel

GLB = bars().export(file_type='glb')
MESH_TYPE = 'model/gltf-binary'


@dataclass
class Request:
    """What a server was asked."""

    path: str
    headers: dict[str, str]
    parts: dict[str, bytes] = field(default_factory=dict)  # of a form, by name
    body: bytes = b''


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's `answer` says; an exception there is the end of the connection."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        kind = self.headers.get('Content-Type', '')
        form = message_from_bytes(f'Content-Type: {kind}\n\n'.encode() + body)
        parts = {part.get_param('name', header='Content-Disposition'):
                 part.get_payload(decode=True) for part in form.walk() if not part.is_multipart()}
        request = Request(self.path, dict(self.headers), parts, body)
        self.server.requests.append(request)
        with suppress(OSError):  # the client has gone
            self.server.answer(self, request)

    do_GET = do_POST = _handle

    def say(self, body: bytes, kind: str = MESH_TYPE, status: int = 200) -> None:
        """Answer everything at once."""
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A server on loopback; `answer(handler, request)` makes its answers."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer: Callable[[Handler, Request], None]) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.answer = answer
        self.requests: list[Request] = []
        self.url = f'http://127.0.0.1:{self.server_port}'


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server which answers so."""
    servers = []

    def start(answer: Callable[[Handler, Request], None]) -> Server:
        servers.append(Server(answer))
        Thread(target=servers[-1].serve_forever, kwargs={'poll_interval': 0.05},
               daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def remote(url: str, **options: object) -> RemoteReconstructor:
    return RemoteReconstructor(RemoteOptions(**(
        {'url': url, 'kind': 'http', 'retries': 0, 'timeout': 20.0} | options)))


def complaint(reconstructor: RemoteReconstructor) -> str:
    """Return the one sentence that an answer is refused with."""
    with pytest.raises(ReconstructionError) as caught:
        reconstructor.reconstruct(sighting())
    assert '\n' not in str(caught.value)
    return str(caught.value)


def assert_as_photographed(model: ObjectModel) -> None:
    assert_closed(model)
    assert model.reconstructor == 'remote'
    assert distance(surface_points(model), true_points()) < 0.012 * PLACE[2]


def glb(mesh: trimesh.Trimesh) -> bytes:
    return mesh.export(file_type='glb')


def test_mesh_of_an_http_server_is_placed_where_the_thing_is(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda handler, request: handler.say(GLB))
    model = remote(f'{server.url}/mesh', guidance_scale=7.5, inference_steps=33).reconstruct(
        sighting())
    assert_as_photographed(model)
    request, = server.requests
    assert request.path == '/mesh'
    assert request.parts['guidance_scale'] == b'7.5' and request.parts['inference_steps'] == b'33'
    assert 'Authorization' not in request.headers


def test_only_the_object_is_sent_in_the_middle_of_a_square(serve: Callable[..., Server]) -> None:
    server = serve(lambda handler, request: handler.say(GLB))
    remote(server.url).reconstruct(sighting())
    picture = np.asarray(Image.open(io.BytesIO(server.requests[0].parts['image'])))
    assert picture.shape == (512, 512, 4)
    shown = picture[..., 3] == 255
    assert set(np.unique(picture[..., 3])) == {0, 255}
    assert (picture[~shown] == (255, 255, 255, 0)).all(), 'nothing of the wall, nor beneath'
    rows, columns = np.nonzero(shown)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(0.85 * 512, abs=8)
    assert (np.ptp(columns) / 2 + columns.min(), np.ptp(rows) / 2 + rows.min()) == pytest.approx(
        (255.5, 255.5), abs=6)


@pytest.mark.parametrize('front, turn', [('-z', 180), ('+x', 90), ('-x', -90), ('any', 120)])
def test_front_axis_of_the_answer_can_be_named(
    front: str, turn: float, serve: Callable[..., Server],
) -> None:
    """A positive turn about +y takes +z to +x."""
    mesh = bars().apply_transform(
        trimesh.transformations.rotation_matrix(np.radians(turn), (0, 1, 0)))
    server = serve(lambda handler, request: handler.say(glb(mesh)))
    assert_as_photographed(remote(server.url, front=front).reconstruct(sighting()))


def test_answer_may_stand_upright_in_the_world(serve: Callable[..., Server]) -> None:
    """The placement's axes tell where up is; these bars stand along them."""
    seen = sighting()
    right_up_front = np.stack([seen.placement.rotation[:, i] for i in (1, 2, 0)], axis=1)
    to_gltf = np.diag([1, -1, -1]) @ bars_turn().T @ right_up_front
    upright = bars()
    upright.vertices = upright.vertices @ to_gltf
    server = serve(lambda handler, request: handler.say(glb(upright)))
    assert_as_photographed(remote(server.url, up='gravity').reconstruct(seen))


def bars_turn() -> np.ndarray:
    """Return the rotation from x right, y down, z away to optical axes, as photographed."""
    return turned() @ np.diag([1, -1, -1])


def test_failure_that_passes_is_waited_for(serve: Callable[..., Server]) -> None:
    def answer(handler: Handler, request: Request) -> None:
        if len(handler.server.requests) == 1:
            handler.say(b'<html>busy</html>', 'text/html', 500)
        else:
            handler.say(GLB)

    server = serve(answer)
    assert_as_photographed(remote(server.url, retries=1).reconstruct(sighting()))
    assert len(server.requests) == 2


def test_attempts_are_counted(serve: Callable[..., Server]) -> None:
    server = serve(lambda handler, request: handler.say(b'', status=503))
    assert 'HTTP status 503' in complaint(remote(server.url, retries=1))
    assert len(server.requests) == 2
    server = serve(lambda handler, request: handler.say(b'', status=404))
    assert 'HTTP status 404' in complaint(remote(server.url, retries=5))
    assert len(server.requests) == 1, 'that will not pass'


def with_content(**changes: object) -> bytes:
    """Return the GLB with other values in its JSON."""
    length, = struct.unpack('<I', GLB[12:16])
    content = json.loads(GLB[20:20 + length]) | changes
    text = json.dumps(content).encode()
    text += b' ' * (-len(text) % 4)
    rest = GLB[20 + length:]
    return (b'glTF' + struct.pack('<II', 2, 20 + len(text) + len(rest))
            + struct.pack('<I', len(text)) + b'JSON' + text + rest)


def many_vertices() -> bytes:
    length, = struct.unpack('<I', GLB[12:16])
    accessors = json.loads(GLB[20:20 + length])['accessors']
    del accessors[0]['bufferView']
    accessors[0]['count'] = 10 ** 12
    return with_content(accessors=accessors)


def broken(vertices: np.ndarray) -> bytes:
    mesh = bars()
    mesh.vertices = vertices
    return glb(mesh)


@pytest.mark.parametrize('body, words', [
    (b'<!DOCTYPE html><html>hello</html>', 'no GLB but a web page'),
    (b'{"error": "no GPU"}', 'no GLB but the text'),
    (b'', 'no GLB but empty'),
    (b'\x89PNG' + bytes(100), 'no GLB but 104 bytes of something else'),
    (GLB[:len(GLB) // 2], 'cut off'),
    (b'glTF', 'cut off'),
    (b'glTF' + struct.pack('<II', 2, 24) + struct.pack('<I', 4) + b'JSONnope', 'damaged'),
    (with_content(accessors=[]), 'damaged|cannot be read'),
    (with_content(meshes=[], nodes=[], scenes=[{'nodes': []}]), 'no mesh with faces|be read'),
    (many_vertices(), 'claims more vertices'),
    (glb(trimesh.PointCloud(np.eye(3))), 'no mesh with faces'),
    (broken(np.where(np.arange(72 // 3)[:, None] == 5, np.nan, bars().vertices)), 'not finite'),
    (broken(0.0 * bars().vertices), 'no extent'),
])
def test_answer_that_is_no_mesh_is_one_sentence(
    body: bytes, words: str, serve: Callable[..., Server],
) -> None:
    import re

    server = serve(lambda handler, request: handler.say(body))
    sentence = complaint(remote(server.url))
    assert re.search(words, sentence), sentence
    assert sentence.startswith("the server '127.0.0.1': ")


def test_what_counts_is_the_content_not_its_name(serve: Callable[..., Server]) -> None:
    server = serve(lambda handler, request: handler.say(GLB, 'text/html'))
    assert_as_photographed(remote(server.url).reconstruct(sighting()))


def drip(handler: Handler, part: bytes, pause: float) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(part)
        handler.wfile.flush()
        time.sleep(pause)


def drip_headers(handler: Handler, request: Request) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\n')
    for _ in range(200):
        handler.wfile.write(b'X')
        handler.wfile.flush()
        time.sleep(0.05)


@pytest.mark.parametrize('answer', [
    lambda handler, request: time.sleep(10),
    lambda handler, request: drip(handler, b'g', 0.05),
    drip_headers,
], ids=['silent', 'drips', 'drips headers'])
def test_slow_server_is_left_in_time(
    answer: Callable[[Handler, Request], None], serve: Callable[..., Server],
) -> None:
    server = serve(answer)
    start = time.monotonic()
    assert 'no answer within 1 s' in complaint(remote(server.url, timeout=1.0, retries=3))
    assert time.monotonic() - start < 8, 'ten seconds are what the server takes'


def test_endless_answer_is_cut_off(serve: Callable[..., Server]) -> None:
    sent = []

    def answer(handler: Handler, request: Request) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(100_000))
            sent.append(100_000)

    server = serve(answer)
    assert 'larger than 1.5 MB' in complaint(remote(server.url, max_megabytes=1.5))
    assert sum(sent) < 30e6, 'what the sockets hold besides'


def test_packed_answer_counts_as_it_is_unpacked(serve: Callable[..., Server]) -> None:
    import gzip

    def answer(handler: Handler, request: Request) -> None:
        body = gzip.compress(bytes(50_000_000))
        handler.send_response(200)
        handler.send_header('Content-Encoding', 'gzip')
        handler.send_header('Content-Length', str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    assert 'larger than 1 MB' in complaint(remote(serve(answer).url, max_megabytes=1.0))


def test_picture_is_not_sent_on_to_others(serve: Callable[..., Server]) -> None:
    other = serve(lambda handler, request: handler.say(GLB))

    def answer(handler: Handler, request: Request) -> None:
        handler.send_response(307)
        handler.send_header('Location', f'{other.url}/elsewhere')
        handler.send_header('Content-Length', '0')
        handler.end_headers()

    assert f'{other.url}/elsewhere' in complaint(remote(serve(answer).url))
    assert not other.requests


def test_connection_that_breaks_or_is_refused_is_one_sentence(
    serve: Callable[..., Server],
) -> None:
    def answer(handler: Handler, request: Request) -> None:
        handler.send_response(200)
        handler.send_header('Content-Length', str(len(GLB)))
        handler.end_headers()
        handler.wfile.write(GLB[:500])

    assert 'connection failed' in complaint(remote(serve(answer).url))
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        assert 'connection failed' in complaint(
            remote(f'http://127.0.0.1:{unused.getsockname()[1]}'))


def test_token_comes_from_the_environment_and_stays_out_of_the_log(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv('MY_TOKEN', 'secret-123')
    server = serve(lambda handler, request: handler.say(b'', status=401))
    with caplog.at_level(logging.DEBUG, 'img2scene_ros'):
        sentence = complaint(remote(server.url, token_variable='MY_TOKEN'))
    assert server.requests[0].headers['Authorization'] == 'Bearer secret-123'
    assert 'refuses' in sentence and 'secret' not in sentence + caplog.text


def test_it_is_off_until_a_server_is_named() -> None:
    with pytest.raises(OptionError, match='remote.url'):
        Pipeline(PipelineOptions(reconstructor='remote'))
    for url in ('nowhere', 'ftp://host/', 'https://', 'http://[', 'http://host:port/'):
        with pytest.raises(OptionError, match='remote.url'):
            remote(url)
    with pytest.raises(OptionError, match='remote.token_variable') as caught:
        remote('https://me:secret@host/')
    assert 'secret' not in str(caught.value)


@pytest.mark.parametrize('url, words', [
    ('https://meshes.example/api', 'meshes.example'),
    ('http://meshes.example/api', 'unencrypted'),
    ('http://127.0.0.1:7860', '127.0.0.1'),
    ('http://localhost:7860', 'localhost'),
    ('http://[::1]:7860', '::1'),
])
def test_that_pictures_leave_is_said_once(
    url: str, words: str, caplog: pytest.LogCaptureFixture,
) -> None:
    remote(url)
    warning, = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert words in warning.getMessage()


def test_object_that_is_hardly_seen_is_not_sent(serve: Callable[..., Server]) -> None:
    server = serve(lambda handler, request: handler.say(GLB))
    pixel = np.zeros((240, 320), bool)
    pixel[100, 200] = True
    for mask, words in ((None, 'mask'), (np.zeros_like(pixel), '8 pixels'),
                        (pixel, '8 pixels')):
        with pytest.raises(ReconstructionError, match=words):
            remote(server.url).reconstruct(with_mask(sighting(), mask))
    assert not server.requests


def gradio_server(
    path: str = '/tmp/mesh.glb', config: bytes = b'{"version": "5.0", "api_prefix": "/api"}',
    events: bytes = b'',
) -> Callable[[Handler, Request], None]:
    """Return how a Gradio app answers; `test_real_gradio_app` tells whether that is right."""
    result = json.dumps([None, {'path': path, 'url': 'http://192.0.2.1/x.glb'}])
    answers = {
        '/config': config, '/api/upload': b'["/tmp/object.png"]',
        '/api/call/make': b'{"event_id": "e1"}',
        '/api/call/make/e1':
            events or f'event: heartbeat\ndata: null\n\nevent: complete\ndata: {result}'.encode(),
        f'/api/file={path}': GLB}
    return lambda handler, request: handler.say(
        answers.get(request.path, b''), 'text/plain', 200 if request.path in answers else 404)


def asking_gradio(url: str, **options: object) -> RemoteReconstructor:
    return remote(url, kind='gradio', api_name='/make', **options)


def test_gradio_function_gets_its_arguments_in_order(serve: Callable[..., Server]) -> None:
    server = serve(gradio_server())
    assert_as_photographed(asking_gradio(
        server.url, arguments=('true', 'image', 'inference_steps', 'fast', 'guidance_scale'),
        guidance_scale=4.5, inference_steps=20).reconstruct(sighting()))
    sent = json.loads(next(item for item in server.requests if item.path == '/api/call/make').body)
    first, image, *others = sent['data']
    assert first is True and others == [20, 'fast', 4.5]
    assert image['path'] == '/tmp/object.png'
    assert image['meta'] == {'_type': 'gradio.FileData'}


@pytest.mark.parametrize('answers, words', [
    ({'config': b'<html>'}, 'not what a Gradio app says'),
    ({'config': b'{}'}, 'no Gradio app'),
    ({'config': b'{"version": "3.41.2"}'}, 'Gradio 3.41.2'),
    ({'config': b'{"version": "4.1.0"}'}, 'HTTP status 404'),
    ({'path': '/tmp/mesh.obj'}, 'no GLB file'),
    ({'events': b'event: error\ndata: "out of memory"\n'}, 'function failed .*out of memory'),
    ({'events': b'event: error\ndata: null\n'}, 'function failed'),
    ({'events': b'event: complete\ndata: [[[\n'}, 'not what a Gradio app says'),
    ({'events': b'event: heartbeat\ndata: null\n'}, 'no result'),
    ({'events': b'event: generating\n' * 300_000}, 'larger than 4 MB'),
])
def test_gradio_app_that_fails_or_lies_is_one_sentence(
    answers: dict[str, object], words: str, serve: Callable[..., Server],
) -> None:
    import re

    sentence = complaint(asking_gradio(serve(gradio_server(**answers)).url))
    assert re.search(words, sentence), sentence


def test_real_gradio_app(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradio = pytest.importorskip('gradio')
    monkeypatch.setenv('GRADIO_ANALYTICS_ENABLED', 'False')
    monkeypatch.setenv('GRADIO_TEMP_DIR', str(tmp_path))
    calls = []

    def make(image: Image.Image, guidance_scale: float, inference_steps: float) -> str:
        if inference_steps == 13:
            raise gradio.Error('out of luck')
        if inference_steps == 14:
            time.sleep(8)
        calls.append((image.size, image.mode, guidance_scale, inference_steps))
        (tmp_path / 'mesh.glb').write_bytes(GLB)
        return str(tmp_path / 'mesh.glb')

    app = gradio.Interface(
        make, [gradio.Image(type='pil', image_mode='RGBA'), gradio.Slider(0, 30),
               gradio.Slider(5, 200)],
        gradio.Model3D(), api_name='make')
    _, url, _ = app.launch(
        server_name='127.0.0.1', prevent_thread_lock=True, quiet=True, share=False)
    try:
        model = asking_gradio(url, guidance_scale=2.5, inference_steps=12).reconstruct(sighting())
        assert_as_photographed(model)
        assert calls == [((512, 512), 'RGBA', 2.5, 12)]
        assert 'function failed' in complaint(asking_gradio(url, inference_steps=13))
        assert 'no answer within 2 s' in complaint(
            asking_gradio(url, inference_steps=14, timeout=2.0))
        assert 'HTTP status' in complaint(remote(url, kind='gradio', api_name='/nothing'))
    finally:
        app.close()
