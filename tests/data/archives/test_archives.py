import gzip
import io
import pickle
import struct
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from tests.makers import cifar_archive, encoded_image, pictures, write_tar

from lsi.data import SourceOptions, load_samples
from lsi.data.archives import cifar as cifar_module
from lsi.data.archives.fetch import Archive, locate, md5_of
from lsi.errors import InputError, OutputError


@pytest.fixture
def options(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    return SourceOptions(data_dir=data, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_comes_in_the_official_order(options, name):
    pixels, codes = cifar_archive(options.data_dir, which=name)
    samples = load_samples(name, options)
    np.testing.assert_array_equal(samples.images, pixels)
    np.testing.assert_array_equal(samples.labels, codes)
    np.testing.assert_array_equal(samples.items.take([59, 3]), pixels[[59, 3]])
    assert samples.ids.tolist() == list(range(60))
    assert samples.class_name(1) == ("car" if name == "cifar10" else "fine 1")
    assert "not the published file" in samples.notes[0]
    assert isinstance(samples.images, np.memmap)


def test_an_unpacked_archive_will_do(options):
    pixels, _ = cifar_archive(options.data_dir)
    path = options.data_dir / "cifar-10-python.tar.gz"
    with tarfile.open(path) as archive:
        archive.extractall(options.data_dir, filter="data")
    path.unlink()
    for place in (options.data_dir, options.data_dir / "cifar-10-batches-py"):
        samples = load_samples("cifar10", SourceOptions(data_dir=place, cache_dir=options.cache_dir))
        np.testing.assert_array_equal(samples.images, pixels)
        assert samples.class_name(1) == "car"


def test_cifar_has_a_test_split(options):
    cifar_archive(options.data_dir)
    test = SourceOptions(data_dir=options.data_dir, cache_dir=options.cache_dir, split="test")
    assert len(load_samples("CIFAR-10", test)) == 10
    with pytest.raises(InputError, match="splits train and test"):
        load_samples("cifar10", SourceOptions(split="dev"))


def test_a_hostile_batch_is_refused(options, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    cifar_archive(options.data_dir, **{"cifar-10-batches-py/data_batch_2": pickle.dumps(Bomb())})
    with pytest.raises(InputError, match=r"data_batch_2.*could run code"):
        load_samples("cifar10", options)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({b"data": np.zeros((2, 7), np.uint8), b"labels": [0, 1]}, "no CIFAR images"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "2 images but 1 labels"),
        ([1, 2], "no CIFAR batch"),
    ],
)
def test_a_batch_of_another_kind_is_refused(options, batch, message):
    cifar_archive(options.data_dir, **{"cifar-10-batches-py/data_batch_1": pickle.dumps(batch)})
    with pytest.raises(InputError, match=message):
        load_samples("cifar10", options)


def test_broken_archives_are_refused(options):
    path = options.data_dir / "cifar-10-python.tar.gz"
    for content in (b"", b"no archive", None):
        if content is None:
            cifar_archive(options.data_dir)
            content = path.read_bytes()[:-2000]
        path.write_bytes(content)
        with pytest.raises(InputError):
            load_samples("cifar10", options)


def test_an_archive_without_batches_is_refused(options):
    write_tar(options.data_dir / "cifar-10-python.tar.gz", {"readme": b"x"})
    with pytest.raises(InputError, match="not a CIFAR-10 archive"):
        load_samples("cifar10", options)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A publisher on this disk, so that a download needs no network."""
    server = tmp_path / "server"
    server.mkdir()
    cifar_archive(server)
    path = server / "cifar-10-python.tar.gz"

    def publish(md5=None):
        archive = Archive(path.name, path.as_uri(), md5 or md5_of(path))
        which = cifar_module.CIFAR["cifar10"]
        changed = replace(which, archive=archive)
        monkeypatch.setitem(cifar_module.CIFAR, "cifar10", changed)
        return path

    return publish


def test_a_download_is_checked_and_kept(published, tmp_path):
    path = published()
    seen = []
    options = SourceOptions(cache_dir=tmp_path / "cache", progress=lambda *step: seen.append(step))
    assert load_samples("cifar10", options).notes == ()
    size = path.stat().st_size
    assert seen[-1] == ("download cifar-10-python.tar.gz", size, size)
    path.unlink()
    assert len(load_samples("cifar10", options)) == 60


def test_a_download_with_a_wrong_checksum_is_thrown_away(published, tmp_path):
    published(md5="0" * 32)
    with pytest.raises(InputError, match="not the published file: MD5"):
        load_samples("cifar10", SourceOptions(cache_dir=tmp_path / "cache"))
    assert list((tmp_path / "cache" / "downloads").iterdir()) == []


def test_without_network_the_error_says_how_to_go_on(tmp_path):
    archive = Archive("x.tgz", (tmp_path / "gone.tgz").as_uri(), "0" * 32)
    with pytest.raises(InputError, match=r"could not be downloaded.*--data-dir"):
        locate(archive, SourceOptions(cache_dir=tmp_path / "cache"))


def test_nothing_without_a_published_checksum_is_downloaded(tmp_path):
    (tmp_path / "x.tgz").write_bytes(b"from anyone")
    archive = Archive("x.tgz", (tmp_path / "x.tgz").as_uri())
    with pytest.raises(InputError, match=r"no published checksum.*--data-dir"):
        locate(archive, SourceOptions(cache_dir=tmp_path / "cache"))
    assert locate(archive, SourceOptions(data_dir=tmp_path)).path == tmp_path / "x.tgz"


def test_a_cache_that_cannot_be_written_is_an_output_error(published, tmp_path):
    published()
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        load_samples("cifar10", SourceOptions(cache_dir=tmp_path / "cache"))


def test_a_missing_data_dir_is_said(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        load_samples("cifar10", SourceOptions(data_dir=tmp_path / "nowhere"))


def write_idx(path, array):
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_fashion_mnist_from_idx_files(options, suffix):
    pixels = pictures(30, side=28)[0][..., 0]
    codes = np.arange(30, dtype=np.uint8) % 10
    write_idx(options.data_dir / f"train-images-idx3-ubyte{suffix}", pixels)
    write_idx(options.data_dir / f"train-labels-idx1-ubyte{suffix}", codes)
    samples = load_samples("fashion-mnist", options)
    np.testing.assert_array_equal(samples.images, pixels)
    np.testing.assert_array_equal(samples.labels, codes)
    assert samples.class_name(9) == "Ankle boot"
    write_idx(options.data_dir / f"train-images-idx3-ubyte{suffix}", codes)
    with pytest.raises(InputError, match="not an idx file of 3-dimensional"):
        load_samples("fashion-mnist", options)


def imagenette(**more):
    pixels, codes = pictures(6, side=20)
    classes = ["n01440764", "n03888257"]
    members = {
        f"imagenette2-160/{part}/{classes[k % 2]}/{k}.JPEG": encoded_image(pixels[k], "JPEG")
        for part in ("train", "val")
        for k in range(6)
    }
    return members | more


def test_imagenette_is_unpacked_once(options):
    path = write_tar(options.data_dir / "imagenette2-160.tgz", imagenette())
    samples = load_samples("imagenette", options)
    assert samples.ids[0] == "n01440764/0.JPEG"
    assert samples.class_name("n03888257") == "parachute"
    assert samples.images[0].shape == (20, 20, 3)
    unpacked = next((options.cache_dir / "unpacked").iterdir())
    before = unpacked.stat().st_mtime_ns
    assert len(load_samples("imagenette", options)) == 6
    assert unpacked.stat().st_mtime_ns == before
    assert path.is_file()


def test_paths_that_climb_out_are_refused(options, tmp_path):
    write_tar(options.data_dir / "imagenette2-160.tgz", imagenette(**{"../../evil.txt": b"x"}))
    with pytest.raises(InputError, match="out of its folder|leave the folder"):
        load_samples("imagenette", options)
    assert not list(tmp_path.rglob("evil.txt"))
    assert list((options.cache_dir / "unpacked").iterdir()) == []


def test_links_that_climb_out_are_refused(options):
    path = options.data_dir / "imagenette2-160.tgz"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("imagenette2-160/train")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link, io.BytesIO())
    with pytest.raises(InputError, match="out of its folder|leave the folder"):
        load_samples("imagenette", options)
