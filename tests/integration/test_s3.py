"""Storage and manifests on a real S3 server, and the same storage contract on local disk."""

import io
import multiprocessing
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from emer_ray import manifest, storage
from emer_ray.config import InputConfig
from emer_ray.errors import ManifestError, StorageError
from tests import fault_proxy, s3_server

pytestmark = pytest.mark.s3


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("bucket")


@pytest.fixture
def direct(s3_endpoint):
    """A bare client of the server: the way around the code under test."""
    return s3_server.client(s3_endpoint)


@pytest.fixture
def faults(s3_endpoint, monkeypatch):
    """The server behind a proxy, for this process."""
    with fault_proxy.proxy(s3_endpoint) as faults:
        monkeypatch.setenv("AWS_ENDPOINT_URL", faults.endpoint)
        yield faults


class TestContract:
    """What holds on every kind of storage."""

    @pytest.mark.parametrize("name", ["x", "a/b c/片段 #1?100%25+é.mp4", "..x/.y"])
    def test_what_is_written_is_read(self, root, name):
        uri = storage.join(root, name)
        assert not storage.exists(uri)
        storage.write(uri, b"one")
        assert (storage.exists(uri), storage.size(uri), storage.read(uri)) == (True, 3, b"one")
        storage.write(uri, b"")
        assert (storage.exists(uri), storage.size(uri), storage.read(uri)) == (True, 0, b"")
        assert [entry.uri for entry in storage.listing(root)] == [uri]

    def test_an_object_is_read_with_its_size_unless_it_is_too_large(self, root):
        uri = storage.join(root, "x")
        storage.write(uri, b"0123456789")
        assert storage.read_up_to(uri, 10) == (10, b"0123456789")
        assert storage.read_up_to(uri, 9) == (10, None)
        storage.write(uri, b"")
        assert storage.read_up_to(uri, 9) == (0, b"")
        with pytest.raises(StorageError) as missing:
            storage.read_up_to(storage.join(root, "y"), 9)
        assert missing.value.kind == "missing"

    def test_a_range_ends_where_the_object_ends(self, root):
        uri = storage.join(root, "x")
        storage.write(uri, b"0123456789")
        ranges = {
            (0, 10): b"0123456789",
            (3, 5): b"34",
            (8, 99): b"89",
            (10, 12): b"",
            (50, 60): b"",
        }
        assert {key: storage.read_range(uri, *key) for key in ranges} == ranges
        assert storage.read_range(uri, 4, 4) == b""
        with pytest.raises(ValueError, match="0 <= start <= end"):
            storage.read_range(uri, 5, 4)

    def test_create_is_for_the_first_only(self, root):
        uri = storage.join(root, "deep", "lease")
        assert storage.create(uri, b"first")
        assert not storage.create(uri, b"second")
        assert storage.read(uri) == b"first"
        storage.delete(uri)
        assert storage.create(uri, b"third")

    def test_of_many_creators_one_wins_and_its_data_stays(self, root):
        uri = storage.join(root, "lease")
        data = [f"writer {number}".encode() * 100 for number in range(12)]
        with ThreadPoolExecutor(12) as pool:
            won = list(pool.map(lambda mine: storage.create(uri, mine), data))
        assert won.count(True) == 1
        assert storage.read(uri) == data[won.index(True)]

    def test_delete_is_content_with_nothing(self, root):
        uri = storage.join(root, "x")
        storage.delete(uri)
        storage.write(uri, b"1")
        storage.delete(uri)
        storage.delete(uri)
        assert not storage.exists(uri)

    def test_a_listing_goes_deep_and_stays_in_its_folder(self, root):
        for name in ("ab/1", "a/2", "a/b/c/3", "a/1"):
            storage.write(storage.join(root, name), name.encode() * 2)
        found = list(storage.listing(storage.join(root, "a")))
        assert [entry.uri for entry in found] == [
            storage.join(root, name) for name in ("a/1", "a/2", "a/b/c/3")
        ]
        assert [entry.size for entry in found] == [6, 6, 14]
        assert all(abs(entry.modified_s - time.time()) < 60 for entry in found)
        assert list(storage.listing(storage.join(root, "a") + "/")) == found
        assert len(list(storage.listing(root))) == 4
        assert list(storage.listing(storage.join(root, "nothing"))) == []

    def test_a_folder_is_no_object(self, root):
        storage.write(storage.join(root, "a", "b"), b"1")
        folder = storage.join(root, "a")
        assert not storage.exists(folder)
        for operation in (storage.read, storage.size, storage.open_file):
            with pytest.raises(StorageError) as caught:
                operation(folder)
            assert caught.value.kind == "missing"

    def test_what_is_missing_is_said_to_be(self, root):
        uri = storage.join(root, "a", "nothing")

        def fetch(uri):
            with storage.fetched(uri):
                pytest.fail("fetched nothing")

        for operation in (
            storage.read,
            storage.size,
            storage.open_file,
            fetch,
            lambda uri: storage.read_range(uri, 0, 3),
        ):
            with pytest.raises(StorageError, match=uri) as caught:
                operation(uri)
            assert caught.value.kind == "missing"
            assert "\n" not in str(caught.value)

    def test_an_open_file_reads_and_seeks_like_one_in_memory(self, root):
        dice = random.Random(4)
        data = dice.randbytes(3_000_000)
        uri = storage.join(root, "x.bin")
        storage.write(uri, data)
        twin = io.BytesIO(data)
        with storage.open_file(uri) as file:
            assert (file.readable(), file.seekable(), file.tell()) == (True, True, 0)
            for _ in range(40):
                whence = dice.choice([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END])
                low, high = {
                    io.SEEK_SET: (0, 3_100_000),
                    io.SEEK_CUR: (-twin.tell(), 400_000),
                    io.SEEK_END: (-3_000_000, 10),
                }[whence]
                offset = dice.randint(low, high)
                assert file.seek(offset, whence) == twin.seek(offset, whence)
                n_bytes = dice.choice([1, 100, 70_000, 600_000])
                assert file.read(n_bytes) == twin.read(n_bytes)
                assert file.tell() == twin.tell()
            file.seek(0)
            assert file.read() == data
            with pytest.raises((ValueError, OSError)):
                file.seek(-1)

    @pytest.mark.parametrize("n_bytes", [0, 5, 20 * 2**20 + 3])
    def test_a_fetched_object_is_a_local_file_for_a_while(self, root, n_bytes):
        data = random.Random(n_bytes).randbytes(n_bytes)
        uri = storage.join(root, "clip.mp4")
        storage.write(uri, data)
        with storage.fetched(uri) as path:
            assert path.suffix == ".mp4"
            assert path.read_bytes() == data
        assert path.exists() == (not storage.is_s3(root))

    def test_a_forked_process_reads_what_its_parent_wrote(self, root):
        uri = storage.join(root, "x")
        storage.write(uri, b"1")
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(storage.read, [uri] * 8) == [b"1"] * 8
            pool.close()  # they end by themselves: Ray's handler of SIGTERM is forked with them
            pool.join()


def denied_or_missing(operation, *arguments):
    with pytest.raises(StorageError) as caught:
        operation(*arguments)
    assert "\n" not in str(caught.value)
    return caught.value.kind, str(caught.value)


def all_of(uri):
    return list(storage.listing(uri))


def test_a_listing_has_more_pages_than_one(bucket, direct):
    name = bucket.removeprefix("s3://")
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda i: direct.put_object(Bucket=name, Key=f"many/{i:04d}", Body=b"x"),
                range(1105),
            )
        )
    found = [entry.uri for entry in storage.listing(f"{bucket}/many")]
    assert found == [f"{bucket}/many/{i:04d}" for i in range(1105)]


def test_a_folder_marker_is_not_listed(bucket, direct):
    direct.put_object(Bucket=bucket.removeprefix("s3://"), Key="a/", Body=b"")
    storage.write(f"{bucket}/a/b", b"1")
    assert [entry.uri for entry in storage.listing(f"{bucket}/a")] == [f"{bucket}/a/b"]


def test_a_stored_object_carries_its_checksum(bucket, direct):
    storage.write(f"{bucket}/x", b"1")
    found = direct.get_object(Bucket=bucket.removeprefix("s3://"), Key="x", ChecksumMode="ENABLED")
    assert found["ChecksumSHA256"] == "a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s="


def test_a_missing_key_and_a_missing_bucket_are_told_apart(bucket):
    for operation in (storage.read, storage.size):
        assert denied_or_missing(operation, f"{bucket}/x") == (
            "missing",
            f"read {bucket}/x: the bucket has no such object; check the key",
        )
        kind, message = denied_or_missing(operation, "s3://no-such-bucket-here/x")
        assert (kind, "there is no such bucket" in message) == ("missing", True)
    kind, message = denied_or_missing(all_of, "s3://no-such-bucket-here/x")
    assert (kind, "there is no such bucket" in message) == ("missing", True)
    assert not storage.exists("s3://no-such-bucket-here/x")


@pytest.mark.parametrize("uri", ["s3://", "s3://only-a-bucket", "s3://only-a-bucket/", "s3:///key"])
def test_a_uri_without_bucket_or_key_names_no_object(s3_endpoint, uri):
    assert denied_or_missing(storage.read, uri) == (
        "storage",
        f"{uri}: names no object; write s3://bucket/key",
    )


@pytest.mark.parametrize(
    ("access", "secret"), [(s3_server.ACCESS_KEY, "not the secret"), ("nobody", "nothing")]
)
def test_a_wrong_secret_is_denied_and_not_shown(bucket, monkeypatch, access, secret):
    storage.write(f"{bucket}/x", b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    for operation, *arguments in (
        (storage.read, f"{bucket}/x"),
        (storage.size, f"{bucket}/x"),
        (storage.exists, f"{bucket}/x"),
        (storage.write, f"{bucket}/x", b"2"),
        (storage.create, f"{bucket}/y", b"2"),
        (storage.delete, f"{bucket}/x"),
        (all_of, bucket),
    ):
        kind, message = denied_or_missing(operation, *arguments)
        assert kind == "denied", message
        assert secret not in message
    monkeypatch.undo()
    assert storage.read(f"{bucket}/x") == b"1"


def test_a_reader_may_not_write(bucket, monkeypatch):
    storage.write(f"{bucket}/x", b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.READER_SECRET)
    assert storage.read(f"{bucket}/x") == b"1"
    kind, message = denied_or_missing(storage.write, f"{bucket}/x", b"2")
    assert kind == "denied"
    assert message.startswith(f"write {bucket}/x: access denied")


def test_no_credentials_at_all_is_denied(bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    kind, message = denied_or_missing(storage.read, f"{bucket}/x")
    assert (kind, "no complete credentials" in message) == ("denied", True)


def test_an_object_replaced_while_it_is_open_is_not_mixed(bucket):
    storage.write(f"{bucket}/x", b"a" * 2_000_000)
    with storage.open_file(f"{bucket}/x") as file:
        file.read(10)
        storage.write(f"{bucket}/x", b"b" * 2_000_000)
        file.seek(1_500_000)
        assert denied_or_missing(file.read, 10) == (
            "storage",
            f"read {bucket}/x: the object was replaced while it was being read; start again",
        )


class TestFaultyNetwork:
    def test_a_body_that_breaks_off_is_asked_for_again(self, bucket, faults):
        data = random.Random(1).randbytes(1_000_000)
        storage.write(f"{bucket}/x", data)
        for operation in (
            storage.read,
            lambda uri: storage.read_range(uri, 0, len(data)),
            lambda uri: storage.open_file(uri).read(),
        ):
            before = faults.n_cut
            faults.cuts = [300_000, 10_000]
            _new_connections()
            assert operation(f"{bucket}/x") == data
            assert faults.n_cut > before

    def test_a_body_that_always_breaks_off_is_a_storage_error(self, bucket, faults, monkeypatch):
        monkeypatch.setattr("emer_ray.storage.s3._ATTEMPTS", 2)
        storage.write(f"{bucket}/x", b"x" * 100_000)
        _new_connections()
        faults.cuts = [50_000] * 100
        kind, message = denied_or_missing(storage.read, f"{bucket}/x")
        assert kind == "storage"
        assert message == (
            f"read {bucket}/x: the connection keeps breaking; check the network and the server"
        )
        assert faults.n_cut == 2

    def test_an_altered_body_is_noticed_and_asked_for_again(self, bucket, faults):
        storage.write(f"{bucket}/x", b"x" * 100_000)
        _new_connections()
        faults.flips = [50_000]
        assert storage.read(f"{bucket}/x") == b"x" * 100_000
        assert faults.flips == []

    def test_a_creator_whose_answer_was_lost_still_wins(self, bucket, faults):
        _new_connections()
        faults.cuts = [0]
        assert storage.create(f"{bucket}/lease", b"mine")
        assert faults.n_cut == 1
        assert not storage.create(f"{bucket}/lease", b"mine")

    def test_an_endpoint_that_nobody_listens_on_is_named(self, monkeypatch, s3_endpoint):
        monkeypatch.setattr("emer_ray.storage.s3._ATTEMPTS", 1)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        kind, message = denied_or_missing(storage.read, "s3://bucket/x")
        assert (kind, "check AWS_ENDPOINT_URL" in message) == ("storage", True)


def _new_connections():
    """Forget the client and its open connections: a cut is chosen when a connection begins."""
    from emer_ray.storage import s3

    s3._new_client.cache_clear()


class TestManifest:
    def test_a_manifest_in_a_bucket_names_its_neighbours(self, bucket):
        rows = (
            "clip_id,video_uri,audio_uri\n1,v/a.mp4,\n2,../b.mp4,s3://other/x.wav\n3,/disk/c.mp4,\n"
        )
        storage.write(f"{bucket}/set/clips.csv", rows.encode())
        table = manifest.load(InputConfig(manifest=f"{bucket}/set/clips.csv"))
        assert table["video_uri"].to_pylist() == [
            f"{bucket}/set/v/a.mp4",
            f"{bucket}/b.mp4",
            "/disk/c.mp4",
        ]
        assert table["audio_uri"].to_pylist() == [None, "s3://other/x.wav", None]

    def test_a_prefix_of_media_is_a_manifest(self, bucket):
        for name in ("m/b.mp4", "m/b.wav", "m/a/x.WAV", "m/readme.txt", "other/c.mp4"):
            storage.write(f"{bucket}/{name}", b"1")
        table = manifest.load(InputConfig(manifest=f"{bucket}/m"))
        assert table.select(["clip_id", "video_uri", "audio_uri"]).to_pylist() == [
            {"clip_id": "a/x", "video_uri": None, "audio_uri": f"{bucket}/m/a/x.WAV"},
            {"clip_id": "b", "video_uri": f"{bucket}/m/b.mp4", "audio_uri": f"{bucket}/m/b.wav"},
        ]

    def test_a_manifest_that_is_not_there_is_said_to_be(self, bucket):
        with pytest.raises(StorageError, match=f"{bucket}/none.parquet"):
            manifest.load(InputConfig(manifest=f"{bucket}/none.parquet"))
        with pytest.raises(ManifestError, match="no folder with media"):
            manifest.load(InputConfig(manifest=f"{bucket}/none"))


def test_the_server_is_named_by_the_environment_only(s3_endpoint):
    assert os.environ["AWS_ENDPOINT_URL"] == s3_endpoint
