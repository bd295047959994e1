"""Code packages: the same files are the same package, what is no package leaves nothing behind."""

import io
import random
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from orchestrator.cli.files import load
from orchestrator.errors import BadInput
from orchestrator.packages import MOST_BYTES, directory, has, pack, unpack
from orchestrator.sizing import SubprocessSizer


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


FILES = {"a.py": "x = 1\n", "sub/b.py": "y = 2\n"}


def zipped(*files: tuple[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return memory.getvalue()


def test_a_package_is_named_by_what_its_files_say_and_nothing_else(tmp_path):
    one = write(tmp_path / "one", FILES)
    two = write(tmp_path / "two", FILES | {"sub/__pycache__/c.py": "", ".hidden.py": "", ".git/d.py": "", "e.pyc": ""})
    (two / "sub" / "link.py").symlink_to(two / "a.py")
    assert pack(one) == pack(two)
    assert pack(write(one, {"a.py": "x = 3\n"})).name != pack(two).name
    assert pack(one / "a.py").files == 1


def test_it_arrives_once_and_whole(tmp_path):
    package = pack(write(tmp_path / "mine", FILES))
    assert not has(package.name, tmp_path)
    assert [unpack(package.name, package.content, tmp_path) for _ in range(2)] == [2, 2]
    arrived = directory(package.name, tmp_path)
    assert (arrived / "sub" / "b.py").read_text() == "y = 2\n"
    assert [each.name for each in (tmp_path / "code").iterdir()] == [package.name]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no package"),
        (b"PK\x03\x04 and nonsense", "no package"),
        (zipped(), "nothing"),
        (zipped(("../out.py", b"x")), "no file '../out.py'"),
        (zipped(("/etc/out.py", b"x")), "no file '/etc/out.py'"),
        (zipped(("a/./b.py", b"x")), "no file"),
        (zipped(("a.py", b"x")), "not the package"),
        (zipped(*[(f"{n}.bin", bytes(2**20)) for n in range(65)]), "at most"),
    ],
)
def test_what_is_no_package_is_refused_and_leaves_nothing(tmp_path, content, said):
    with pytest.raises(BadInput, match=said):
        unpack("0" * 64, content, tmp_path / "storage")
    assert not (tmp_path / "storage").exists()
    assert not (tmp_path / "out.py").exists()


def bomb(method: int) -> bytes:
    """A file of 16 MiB of zeros that says of itself that it has one byte."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", method) as archive:
        archive.writestr("a.py", bytes(2**24))
        archive.getinfo("a.py").file_size = 1
    return memory.getvalue()


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (zipfile.ZIP_DEFLATED, "no package"),
        (zipfile.ZIP_BZIP2, "stored or deflated; 'a.py' is neither"),
        (zipfile.ZIP_LZMA, "stored or deflated; 'a.py' is neither"),
    ],
)
def test_a_file_that_lies_about_its_size_takes_no_memory(tmp_path, method, said):
    content = bomb(method)
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match=said):
            unpack("0" * 64, content, tmp_path / "storage")
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
    assert not (tmp_path / "storage").exists()


def test_a_package_that_is_damaged_is_refused(tmp_path):
    package = pack(write(tmp_path / "mine", {"a.py": "x = 1\n" * 100}))
    damaged = bytearray(package.content)
    damaged[34:44] = b"\xff" * 10
    with pytest.raises(BadInput, match="no package"):
        unpack(package.name, bytes(damaged), tmp_path / "storage")


def test_data_do_not_travel_as_code(tmp_path):
    (tmp_path / "noise.bin").write_bytes(random.Random(0).randbytes(MOST_BYTES + 1))
    with pytest.raises(BadInput, match="leave data out"):
        pack(tmp_path)


def test_a_sweep_files_code_becomes_the_package_that_lies_beside_it(tmp_path):
    package = pack(write(tmp_path / "mine", FILES))
    file = tmp_path / "sweep.yaml"
    for words in ("code: mine", "code: {path: ./mine, imports: [a]}"):
        file.write_text(f"name: x\nparameters: {{training.lr: [1e-3]}}\n{words}\n")
        loaded = load(file, None, [], SubprocessSizer())
        assert loaded.package == package
        assert loaded.accepted.spec.code is not None
        assert loaded.accepted.spec.code.package == package.name
        assert package.name in loaded.text
    assert loaded.accepted.spec.code.imports == ["a"]
    file.write_text("name: x\ncode: nowhere\n")
    with pytest.raises(BadInput, match="nowhere: there is no such file"):
        load(file, None, [], SubprocessSizer())


@pytest.mark.parametrize("name", ["PYTHONPATH", "ORCH_HOME", "RAY_ADDRESS", "a-b"])
def test_variables_that_orch_needs_are_not_for_sweeps_to_set(tmp_path, name):
    file = tmp_path / "sweep.yaml"
    file.write_text(f"name: x\nenvironment: {{{name}: 1}}\n")
    with pytest.raises(BadInput, match=r"not for sweeps to set|no name of a variable"):
        load(file, None, [], SubprocessSizer())
