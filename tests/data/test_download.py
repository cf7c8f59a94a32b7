"""A download ends with whole files or says why not, whatever the server and the line do."""

import fcntl
import json
import os
import re
import shutil
import ssl
import struct
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.download import (
    DownloadError,
    Source,
    gigabytes,
    plan_download,
    run_download,
)
from canvas_robot.data.transfer import Patience, RemoteFile, Transfer, TransferError, open_client

LENGTHS = {"train": (2, 17, 6), "val": (3,)}
SECOND = "bridge_dataset-train.tfrecord-00001-of-00003"
NOW = Patience(tries=3, first_wait_s=0.0, longest_wait_s=0.0, timeout_s=10.0)


class Server:
    """Serves `files` by name on this machine, with byte ranges; `faults` go wrong instead.

    A fault of a name is a list; each request takes the first of it and is answered so: an int is
    a status, ("cut", n) closes the connection after n bytes, a function is handed the request.
    `asked` lists (name, Range header) of every request.
    """

    def __init__(self, files, context=None):
        self.files, self.faults, self.asked = files, {}, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *args):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://localhost:{self._http.server_port}/1.0.0"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def asked_of(self, name):
        return [wanted for asked, wanted in self.asked if asked == name]

    def answer(self, request):
        name, wanted = request.path.rpartition("/")[2], request.headers.get("Range", "")
        self.asked.append((name, wanted))
        fault = self.faults[name].pop(0) if self.faults.get(name) else None
        if callable(fault):
            return fault(request)
        if isinstance(fault, int):
            return send(request, fault, b"")
        if name not in self.files:
            return send(request, 404, b"")
        content = self.files[name]
        begin = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        if wanted and begin >= len(content):
            return send(request, 416, b"", {"Content-Range": f"bytes */{len(content)}"})
        span = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
        cut = fault[1] if fault else None
        send(request, 206 if wanted else 200, content[begin:], span if wanted else {}, cut)


def send(request, status, content, headers=(), cut=None):
    request.send_response(status)
    request.send_header("Content-Length", str(len(content)))
    for name, value in dict(headers).items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(content[:cut])


@pytest.fixture(scope="session")
def published(bridge_sample):
    """name -> content: the real sample, its records laid out in several shards."""
    data = (bridge_sample / "bridge_dataset-train.tfrecord-00000-of-00001").read_bytes()
    records, at = [], 0
    while at < len(data):
        end = at + 16 + struct.unpack_from("<Q", data, at)[0]
        records.append(data[at:end])
        at = end
    files = {"features.json": (bridge_sample / "features.json").read_bytes()}
    info = json.loads((bridge_sample / "dataset_info.json").read_bytes())
    for split in info["splits"]:
        lengths = LENGTHS[split["name"]]
        ends = [sum(lengths[:count]) for count in range(len(lengths) + 1)]
        for number, (first, last) in enumerate(pairwise(ends)):
            name = f"bridge_dataset-{split['name']}.tfrecord-{number:05}-of-{len(lengths):05}"
            files[name] = b"".join(records[first:last])
        split["shardLengths"] = [str(length) for length in lengths]
        split["numBytes"] = str(sum(len(record) - 16 for record in records[: ends[-1]]))
    return {**files, "dataset_info.json": json.dumps(info).encode()}


@pytest.fixture
def server(published):
    server = Server(dict(published))
    yield server
    server.close()


def fetch(server, folder, patience=NOW, jobs=2, **source):
    plan = plan_download(folder, Source(url=server.url, **source), patience)
    return {outcome.name: outcome for outcome in run_download(plan, jobs, patience=patience)}


def results(outcomes):
    return [outcome.result for outcome in outcomes.values()]


def stored(folder):
    return folder / "bridge_dataset" / "1.0.0"


def contents(folder):
    return {path.name: path.read_bytes() for path in stored(folder).iterdir()}


# ---------------------------------------------------------------- what arrives


def test_everything_that_is_published_arrives_byte_for_byte(server, published, tmp_path):
    assert results(fetch(server, tmp_path)) == ["fetched"] * 4
    assert contents(tmp_path) == published
    assert len(BridgeV2(tmp_path)) == 25 and len(BridgeV2(tmp_path, split="val")) == 3


def test_the_metadata_is_asked_for_first(server, tmp_path):
    fetch(server, tmp_path)
    assert [name for name, _ in server.asked[:2]] == ["features.json", "dataset_info.json"]


def test_a_second_run_fetches_nothing_but_the_metadata(server, tmp_path):
    fetch(server, tmp_path)
    server.asked.clear()
    assert results(fetch(server, tmp_path)) == ["kept"] * 4
    assert len(server.asked) == 2


def test_only_the_asked_splits_and_names_are_fetched(server, tmp_path):
    assert list(fetch(server, tmp_path, splits=("val",))) == [
        "bridge_dataset-val.tfrecord-00000-of-00001"
    ]
    assert list(fetch(server, tmp_path, only="*-00001-of-*")) == [SECOND]


def test_what_is_told_of_bytes_adds_up(server, published, tmp_path):
    told = []
    plan = plan_download(tmp_path, Source(url=server.url), NOW)
    shards = sum(len(content) for name, content in published.items() if "tfrecord" in name)
    assert plan.about_bytes == plan.missing_bytes() == pytest.approx(shards, abs=len(plan.shards))
    server.faults[SECOND] = [("cut", 1000), lambda request: send(request, 200, b"short")]
    run_download(plan, moved=told.append, patience=NOW)
    assert sum(told) == shards and min(told) < 0 and plan.missing_bytes() == 0


# ---------------------------------------------------------------- broken lines


def test_a_broken_connection_is_taken_up_where_it_broke(server, published, tmp_path):
    server.faults[SECOND] = [("cut", 200_000), ("cut", 300_000)]
    assert fetch(server, tmp_path)[SECOND].result == "fetched"
    assert server.asked_of(SECOND) == ["", "bytes=200000-", "bytes=500000-"]
    assert contents(tmp_path) == published


def test_a_server_in_trouble_is_asked_again(server, published, tmp_path):
    server.faults = {"features.json": [503], SECOND: [500, 429]}
    assert results(fetch(server, tmp_path)) == ["fetched"] * 4
    assert contents(tmp_path) == published


def test_tries_without_a_new_byte_end_and_the_next_run_goes_on(server, published, tmp_path):
    server.faults[SECOND] = [("cut", 100_000), ("cut", 0), ("cut", 0)]
    failed = fetch(server, tmp_path)[SECOND]
    assert failed.result == "failed" and "run the command again" in failed.remedy
    assert f"{SECOND}: 3 tries failed" in failed.problem
    assert (stored(tmp_path) / f"{SECOND}.part").stat().st_size == 100_000
    server.asked.clear()
    assert sorted(results(fetch(server, tmp_path))) == ["kept"] * 3 + ["resumed"]
    assert server.asked_of(SECOND) == ["bytes=100000-"]
    assert contents(tmp_path) == published


def test_a_server_that_falls_silent_is_given_up_in_time(server, published, tmp_path):
    ended = threading.Event()

    def silent(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(published[SECOND])))
        request.end_headers()
        ended.wait(20)

    server.faults[SECOND] = [silent]
    patience = Patience(tries=1, timeout_s=0.2)
    outcome = fetch(server, tmp_path, patience)[SECOND]
    ended.set()
    assert outcome.result == "failed" and "ReadTimeout" in outcome.problem


def test_ctrl_c_keeps_what_has_come(server, published, tmp_path):
    plan = plan_download(tmp_path, Source(url=server.url), NOW)

    def interrupt(outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_download(plan, jobs=1, done=interrupt, patience=NOW)
    first = contents(tmp_path)
    assert plan.shards[0].name in first
    later = results(fetch(server, tmp_path))
    assert "kept" in later and "failed" not in later
    assert contents(tmp_path) == published


def test_a_server_without_ranges_sends_all_of_it(server, published, tmp_path):
    part = stored(tmp_path) / f"{SECOND}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(published[SECOND][:5000])
    server.faults[SECOND] = [lambda request: send(request, 200, published[SECOND])]
    assert fetch(server, tmp_path)[SECOND].result == "fetched"
    assert contents(tmp_path) == published


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(lambda content: content, id="already whole"),
        pytest.param(lambda content: b"x" * 5000, id="of another file"),
        pytest.param(lambda content: content + b"x", id="longer than the file"),
    ],
)
def test_any_part_ends_as_the_whole_file(server, published, tmp_path, part):
    path = stored(tmp_path) / f"{SECOND}.part"
    path.parent.mkdir(parents=True)
    path.write_bytes(part(published[SECOND]))
    assert fetch(server, tmp_path)[SECOND].result in ("resumed", "fetched")
    assert contents(tmp_path) == published


def test_bytes_from_another_place_than_asked_are_not_put_together(server, published, tmp_path):
    content = published[SECOND]
    wrong = {"Content-Range": f"bytes 7-{len(content) - 1}/{len(content)}"}
    server.faults[SECOND] = [("cut", 1000), lambda request: send(request, 206, content[7:], wrong)]
    assert fetch(server, tmp_path)[SECOND].result == "fetched"
    assert contents(tmp_path) == published


# ---------------------------------------------------------------- damaged files


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda content: flipped(content, 5), "record at 0: wrong checksum of the record's length"),
        (
            lambda content: flipped(content, 400),
            "record at 0: wrong checksum of 136744 bytes",
        ),
        (lambda content: content[:-100], r"expected a record of \d+ bytes, got \d+: the file is"),
        (lambda content: content[: 16 + struct.unpack("<Q", content[:8])[0]], "17 records, got 1"),
        (lambda content: b"", "expected 17 records, got 0"),
    ],
    ids=["length", "data", "cut", "records missing", "empty"],
)
def test_a_damaged_file_is_never_put_in_place(server, tmp_path, damage, problem):
    server.files[SECOND] = damage(server.files[SECOND])
    outcomes = fetch(server, tmp_path)
    assert sorted(results(outcomes)) == ["failed", "fetched", "fetched", "fetched"]
    assert re.search(f"fetched twice, and damaged both .*{problem}", outcomes[SECOND].problem)
    assert "--url" in outcomes[SECOND].remedy
    assert not [name for name in contents(tmp_path) if name.startswith(SECOND)]


def test_damage_on_the_way_is_mended_by_fetching_again(server, published, tmp_path):
    damaged = flipped(published[SECOND], 400)
    server.faults[SECOND] = [lambda request: send(request, 200, damaged)]
    assert fetch(server, tmp_path)[SECOND].result == "fetched"
    assert contents(tmp_path) == published


def test_a_file_that_was_damaged_here_is_replaced(server, published, tmp_path):
    fetch(server, tmp_path)
    path = stored(tmp_path) / SECOND
    path.write_bytes(flipped(published[SECOND], 400))
    assert sorted(results(fetch(server, tmp_path))) == ["fetched", "kept", "kept", "kept"]
    assert contents(tmp_path) == published


def test_a_longer_file_than_the_split_is_refused_before_it_comes(server, published, tmp_path):
    server.files[SECOND] += b"x" * sum(len(content) for content in published.values())
    outcome = fetch(server, tmp_path)[SECOND]
    assert "expected at most 3,475,142 bytes, got " in outcome.problem
    assert server.asked_of(SECOND) == [""] and not (stored(tmp_path) / f"{SECOND}.part").exists()


def test_a_file_without_a_length_is_cut_off_at_the_most_it_may_have(server, tmp_path):
    def endless(request):
        request.send_response(200)
        request.end_headers()
        for _ in range(40):
            request.wfile.write(b"x" * 100_000)

    server.faults[SECOND] = [endless]
    assert "expected at most 3,475,142 bytes, got more" in fetch(server, tmp_path)[SECOND].problem


def test_a_missing_file_is_reported_and_not_asked_for_again(server, tmp_path):
    del server.files[SECOND]
    outcomes = fetch(server, tmp_path)
    assert sorted(results(outcomes)) == ["failed", "fetched", "fetched", "fetched"]
    assert "the server answers 404" in outcomes[SECOND].problem
    assert "--version" in outcomes[SECOND].remedy
    assert server.asked_of(SECOND) == [""]


def test_a_file_that_a_proxy_packed_is_refused(server, published, tmp_path):
    packed = {"Content-Encoding": "gzip"}
    server.faults[SECOND] = [lambda request: send(request, 200, published[SECOND], packed)]
    assert "encoded as 'gzip'" in fetch(server, tmp_path)[SECOND].problem


# ---------------------------------------------------------------- what is not believed


def info_with(server, change):
    info = json.loads(server.files["dataset_info.json"])
    change(info)
    server.files["dataset_info.json"] = json.dumps(info).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.update(name="../../evil"),
        lambda info: info.update(version="1.0.0/.."),
        lambda info: info.update(fileFormat="../x"),
        lambda info: info["splits"][0].update(name="../train"),
        lambda info: info["splits"][0].update(name="train\n"),
        lambda info: info["splits"][0].update(filepathTemplate="../{SPLIT}-{SHARD_X_OF_Y}"),
        lambda info: info["splits"][0].update(filepathTemplate="/etc/{SHARD_X_OF_Y}"),
        lambda info: info["splits"][0].update(shardLengths=["-1"]),
        lambda info: info["splits"][0].update(shardLengths=[]),
        lambda info: info["splits"][0].update(shardLengths=["1"] * 100_000),
        lambda info: info["splits"][0].update(numBytes="-5"),
        lambda info: info["splits"][0].pop("numBytes"),
        lambda info: info.update(splits=info["splits"] * 2),
        lambda info: info.update(splits=[]),
        lambda info: info.clear(),
    ],
)
def test_hostile_metadata_is_refused_and_nothing_is_written(server, tmp_path, change):
    info_with(server, change)
    with pytest.raises(DownloadError, match=r"dataset_info\.json: "):
        fetch(server, tmp_path / "inside")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"<html>", b"[" * 100_000, b'{"name": ' + b"9" * 9_999])
def test_metadata_that_is_no_json_is_refused(server, tmp_path, content):
    server.files["dataset_info.json"] = content
    with pytest.raises(TransferError, match=r"both times: dataset_info\.json: expected JSON"):
        fetch(server, tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_data_set_than_asked_is_refused(server, tmp_path):
    info_with(server, lambda info: info.update(name="fractal"))
    with pytest.raises(DownloadError, match=r"expected bridge_dataset 1.0.0, got fractal 1.0.0"):
        fetch(server, tmp_path)


def test_a_folder_of_another_data_set_is_left_alone(server, tmp_path):
    fetch(server, tmp_path)
    before = contents(tmp_path)
    info_with(server, lambda info: info["splits"][0].update(shardLengths=["25"]))
    with pytest.raises(DownloadError, match="expected the published shards, got others; choose"):
        fetch(server, tmp_path)
    server.files["features.json"] = b"{}"
    with pytest.raises(DownloadError, match="expected what is published now, got other features"):
        fetch(server, tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("field", "value"),
    [("dataset", "../x"), ("dataset", ""), ("version", "1.0"), ("version", "1.0.0\n"),
     ("url", "ftp://x"), ("url", "file:///etc")],
)  # fmt: skip
def test_a_source_that_cannot_be_one_is_refused(field, value):
    with pytest.raises(DownloadError, match=f"{field}: expected"):
        Source(**{field: value})


def test_unknown_splits_and_names_are_refused_with_the_known_ones(server, tmp_path):
    with pytest.raises(DownloadError, match=r"--split: expected some of \['train', 'val'\], got"):
        fetch(server, tmp_path, splits=("test",))
    with pytest.raises(DownloadError, match=r"--only: expected .* 4 names such as 'bridge_data"):
        fetch(server, tmp_path, only="*.zip")


def test_too_small_a_disk_is_said_before_anything_is_fetched(server, tmp_path):
    info_with(server, lambda info: info["splits"][0].update(numBytes=str(9 * 10**14)))
    with pytest.raises(DownloadError, match=r"expected 900000\.\d GB free, got .*; free 8.* GB, "):
        fetch(server, tmp_path)
    assert not list(tmp_path.iterdir()) and len(server.asked) == 2


def test_two_downloads_do_not_fill_one_folder(server, tmp_path):
    stored(tmp_path).mkdir(parents=True)
    other = os.open(stored(tmp_path), os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(DownloadError, match="another download is filling this folder"):
        fetch(server, tmp_path)
    os.close(other)
    assert results(fetch(server, tmp_path)) == ["fetched"] * 4


def test_the_publishers_address_is_the_default():
    assert Source().folder_url == (
        "https://rail.eecs.berkeley.edu/datasets/bridge_release/data/tfds/bridge_dataset/1.0.0/"
    )


def test_sizes_are_said_in_words():
    sizes = (124 * 10**9, 5_600_000, 1_000, 7)
    assert [gigabytes(size) for size in sizes] == ["124.0 GB", "5.6 MB", "1.0 kB", "7 bytes"]


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Of localhost, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [*"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split(),
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return folder


@pytest.fixture
def tls_server(published, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    server = Server(dict(published), context)
    yield server
    server.close()


def fetch_features(server, folder):
    file = RemoteFile(f"{server.url}/features.json", folder / "f", 10**6, lambda path: None)
    with open_client(server.url, NOW) as client:
        return Transfer(client, NOW, threading.Event()).fetch(file)


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(tls_server, tmp_path):
    with pytest.raises(TransferError, match="certificate cannot be trusted"):
        fetch_features(tls_server, tmp_path)
    assert not tls_server.asked and not list(tmp_path.iterdir())


def test_https_is_not_left_on_the_way(tls_server, server, certificate, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    fetch_features(tls_server, tmp_path)
    plain = {"Location": f"{server.url}/features.json"}
    tls_server.faults["features.json"] = [lambda request: send(request, 302, b"", plain)]
    with pytest.raises(TransferError, match=r"expected https all the way, got .* to http://"):
        fetch_features(tls_server, tmp_path)
    assert not server.asked
