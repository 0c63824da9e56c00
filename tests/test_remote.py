"""Models and stores at addresses: fsspec's file system in memory, and servers that stand for S3 and Google Storage."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

import liverjax
from liverjax import remote
from liverjax.commands.dispatch import main
from liverjax.datasets.layouts import find_cases
from liverjax.errors import CheckpointError, InputError
from liverjax.pretrained import bundle

fsspec = pytest.importorskip("fsspec", reason="liverjax[cloud] is not installed")


@pytest.fixture(autouse=True)
def _cache_of_the_test(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVERJAX_CACHE", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "STORAGE_EMULATOR"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def memory():
    """fsspec's file system in memory, empty."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture(scope="module")
def file(tiny_run, tmp_path_factory):
    """A bundle of `tiny_run`."""
    path = tmp_path_factory.mktemp("bundle") / "model.safetensors"
    bundle.write_bundle(path, liverjax.load_model(tiny_run), licence="CC0-1.0")
    return path


def _copies(tmp_path):
    return sorted(
        p.relative_to(tmp_path / "cache").as_posix()
        for p in (tmp_path / "cache").rglob("*")
        if p.is_file() and p.name != ".lock"
    )


def test_a_bundle_is_copied_once_and_again_when_either_end_changes(memory, file, tmp_path, monkeypatch):
    memory.put_file(str(file), "/bucket/model.safetensors")
    fetched = []
    fetch = remote.RemoteFolder.fetch
    monkeypatch.setattr(
        remote.RemoteFolder,
        "fetch",
        lambda self, name, *a, **k: fetched.append(name) or fetch(self, name, *a, **k),
    )
    config = liverjax.load_model(file).config
    for _ in range(2):
        assert liverjax.load_model("memory://bucket/model.safetensors").config == config
    assert fetched == [""]
    # A bit of the copy flips on the disk.
    (copy,) = (tmp_path / "cache" / "models").glob("*/model.safetensors")
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    assert liverjax.load_model("memory://bucket/model.safetensors").config == config
    assert fetched == ["", ""] and copy.read_bytes() == file.read_bytes()
    # The object changes, to as many bytes: no checksum of the copy could tell.
    memory.pipe_file("/bucket/model.safetensors", bytes(data))
    with pytest.raises(CheckpointError, match="not as it was written"):
        liverjax.load_model("memory://bucket/model.safetensors")
    assert fetched == ["", "", ""]


def test_a_run_is_copied_without_what_prediction_does_not_read(memory, tiny_run, tmp_path):
    memory.put(str(tiny_run), "/bucket/run", recursive=True)
    assert memory.exists("/bucket/run/axial/last")
    model = liverjax.load_model("memory://bucket/run")
    assert model.about["checkpoints"] == liverjax.load_model(tiny_run).about["checkpoints"]
    copies = _copies(tmp_path)
    assert any("/run/axial/best/" in name for name in copies)
    assert not any("/last/" in name or "tensorboard" in name for name in copies)
    # What is removed there does not stay here.
    best = next(name for name in copies if name.endswith("checksums.json"))
    memory.rm("/bucket/run/axial/best", recursive=True)
    with pytest.raises(CheckpointError, match="axial/best: holds no finished checkpoint|does not exist"):
        liverjax.load_model("memory://bucket/run")
    assert best not in _copies(tmp_path)


def test_an_address_predicts_what_the_file_predicts(memory, file, phantom_scans, tmp_path, capsys):
    memory.put_file(str(file), "/bucket/model.safetensors")
    scan = str(find_cases(phantom_scans)[0].image)
    for model, name in ((str(file), "file"), ("memory://bucket/model.safetensors", "address")):
        assert main(["predict", f"--model={model}", "-i", scan, "-o", str(tmp_path / name), "--quiet"]) == 0
    (one,), (two,) = ((tmp_path / name).glob("*.nii.gz") for name in ("file", "address"))
    assert one.read_bytes() == two.read_bytes()
    facts = json.loads((tmp_path / "address" / "manifest.json").read_text(encoding="utf-8"))
    assert facts["model"] == "memory://bucket/model.safetensors"


def test_an_address_that_is_wrong_is_told_in_a_line_with_a_remedy(memory, file):
    with pytest.raises(
        InputError, match="nothing.safetensors does not exist, .*; verify the names of bucket"
    ):
        liverjax.load_model("memory://bucket/nothing.safetensors")
    with pytest.raises(
        InputError, match=r"nonsense://b/x cannot be read \(Protocol not known.*\); verify the address"
    ):
        liverjax.load_model("nonsense://b/x")
    # The remedy of both.
    memory.put_file(str(file), "/bucket/model.safetensors")
    assert liverjax.load_model("memory://bucket/model.safetensors")


def test_paths_that_lead_out_of_the_cache_are_refused(memory, tmp_path):
    memory.store["/bucket/run/../../outside"] = memory.open("/bucket/run/run.json", "wb")
    with pytest.raises(InputError, match="expected paths within it"):
        liverjax.load_model("memory://bucket/run")
    assert not (tmp_path / "outside").exists() and _copies(tmp_path) == []


def test_files_that_change_while_they_are_copied_are_not_mixed(memory, file, monkeypatch):
    memory.put_file(str(file), "/bucket/model.safetensors")
    fetch = remote.RemoteFolder.fetch

    def changing(self, name, *arguments, **options):
        fetch(self, name, *arguments, **options)
        memory.put_file(str(file), "/bucket/model.safetensors")

    with monkeypatch.context() as context:
        context.setattr(remote.RemoteFolder, "fetch", changing)
        with pytest.raises(InputError, match=r"changes while it is copied, .*; try again later"):
            liverjax.load_model("memory://bucket/model.safetensors")
    assert liverjax.load_model("memory://bucket/model.safetensors")


def test_what_comes_short_is_told(memory, tmp_path):
    memory.pipe_file("/bucket/file", b"12345")
    folder = remote.RemoteFolder("memory://bucket/file", "--model")
    with pytest.raises(
        InputError, match="--model: memory://bucket/file: 5 bytes came, expected 6; try again"
    ):
        folder.fetch("", tmp_path / "copy", size=6)
    with pytest.raises(InputError, match="not as it was written"):
        folder.fetch("", tmp_path / "copy", digest="0" * 64)
    assert not list(tmp_path.glob("copy*")) and not list(tmp_path.glob(".partial*"))
    folder.fetch("", tmp_path / "copy", size=5)
    assert (tmp_path / "copy").read_bytes() == b"12345"


@pytest.mark.parametrize(("scheme", "package"), [("gs", "gcsfs"), ("s3", "s3fs")])
def test_a_missing_package_is_named(monkeypatch, scheme, package):
    monkeypatch.setitem(sys.modules, package, None)
    with monkeypatch.context() as context:
        context.setattr(sys.modules["fsspec.registry"], "_registry", {})
        with pytest.raises(InputError) as caught:
            liverjax.load_model(f"{scheme}://bucket/run")
    found = re.fullmatch(
        rf"the model: {scheme}://bucket/run: package (\S+) is missing; install it with: pip install (\S+)",
        str(caught.value),
    )
    assert found and found[1] == found[2] == package


def test_the_cache_is_where_the_variables_say(monkeypatch, tmp_path):
    assert remote.cache() == tmp_path / "cache"
    monkeypatch.delenv("LIVERJAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert remote.cache() == tmp_path / "xdg" / "liverjax"


# --- servers ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _server(*command, port, path):
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            assert process.poll() is None
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def s3_server():
    """The address of a server of S3 on this machine."""
    for package in ("moto", "s3fs", "flask"):
        pytest.importorskip(package, reason=f"package {package} is not installed")
    port = _free_port()
    with _server(
        "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), port=port, path="/moto-api/"
    ) as place:
        yield place


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The file system of a bucket "bucket" of that server, empty."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    request = urllib.request.Request(f"{s3_server}/moto-api/reset", method="POST")
    urllib.request.urlopen(request, timeout=20).close()
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("bucket")
    yield system
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_run_and_a_bundle_of_s3(s3, tiny_run, file, tmp_path):
    s3.put(str(tiny_run), "bucket/run", recursive=True)
    s3.put_file(str(file), "bucket/model.safetensors")
    here = liverjax.load_model(tiny_run)
    there = liverjax.load_model("s3://bucket/run")
    assert there.about["checkpoints"] == here.about["checkpoints"]
    for view in here.config.views:
        for one, two in zip(
            here.trained(view)[1]["params"].items(), there.trained(view)[1]["params"].items(), strict=True
        ):
            assert str(one) == str(two)
    assert liverjax.load_model("s3://bucket/model.safetensors").config.views == here.config.views
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}
    liverjax.load_model("s3://bucket/model.safetensors")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}


def test_s3_without_bucket_or_credentials_is_told_and_works_with_them(s3, file, monkeypatch):
    s3.put_file(str(file), "bucket/model.safetensors")
    with pytest.raises(
        InputError, match="the model: s3://another/x does not exist, .*; verify the names of bucket"
    ):
        liverjax.load_model("s3://another/x")
    with monkeypatch.context() as without:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            without.delenv(name)
        without.setenv("HOME", "/nonexistent")
        type(s3).clear_instance_cache()
        with pytest.raises(
            InputError, match="may not be read .*; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ):
            liverjax.load_model("s3://bucket/model.safetensors")
    type(s3).clear_instance_cache()
    assert liverjax.load_model("s3://bucket/model.safetensors")


def test_a_server_that_does_not_answer_is_told(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{_free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    type(s3).clear_instance_cache()
    with pytest.raises(
        InputError, match=r"cannot be read \(.*\); verify the address, and that this machine reaches"
    ):
        liverjax.load_model("s3://bucket/model.safetensors")


def test_a_store_of_s3_has_the_arrays_of_the_folder(s3, tiny_config):
    from liverjax.data.store import open_store

    s3.put(tiny_config.store, "bucket/store", recursive=True)
    here, there = (
        open_store(place, tiny_config.preprocess, tiny_config.target)
        for place in (tiny_config.store, "s3://bucket/store")
    )
    assert [case.id for case in here.cases] == [case.id for case in there.cases]
    for one, two in zip(here.cases[:2], there.cases[:2], strict=True):
        assert np.array_equal(one.image("coronal"), two.image("coronal"))
        assert np.array_equal(one.labels("axial"), two.labels("axial"))


def test_a_bundle_of_google_storage(file, monkeypatch, tmp_path):
    gcsfs = pytest.importorskip("gcsfs", reason="package gcsfs is not installed")
    pytest.importorskip("gcp_storage_emulator", reason="package gcp-storage-emulator is not installed")
    port = _free_port()
    command = ("-m", "gcp_storage_emulator", "start", "--host=127.0.0.1", f"--port={port}", "--in-memory")
    with _server(*command, "--default-bucket=bucket", port=port, path="/storage/v1/b") as place:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", place)
        gcsfs.GCSFileSystem.clear_instance_cache()
        gcsfs.GCSFileSystem().put_file(str(file), "bucket/models/model.safetensors")
        for _ in range(2):
            assert (
                liverjax.load_model("gs://bucket/models/model.safetensors").config
                == liverjax.load_model(file).config
            )
        with pytest.raises(InputError, match="gs://bucket/other does not exist"):
            liverjax.load_model("gs://bucket/other")
        gcsfs.GCSFileSystem.clear_instance_cache()
    shutil.rmtree(tmp_path / "cache")
