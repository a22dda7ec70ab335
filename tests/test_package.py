"""What is published: the wheel's contents, its extras, and the pinned requirements that set the project up."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PINNED = re.compile(r"^([a-z0-9.-]+)==(\S+)(?: ; (.+?))? \\$")


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_with_its_types_and_the_demos_data_and_models(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"tapehead", f"tapehead-{PROJECT['version']}.dist-info"}
    assert "tapehead/py.typed" in names
    assert [name for name in names if name.startswith("tapehead/demo/data/") and name.endswith(".csv")]
    assert [name for name in names if name.startswith("tapehead/demo/models/") and name.endswith(".keras")]


def test_the_client_alone_installs_and_imports_without_tensorflow(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel)
    installed = {line.split("==")[0].lower() for line in run(python, "-m", "pip", "freeze").splitlines()}
    assert installed & {"tensorflow", "tensorflow-cpu", "keras", "fastapi", "matplotlib"} == set()
    program = "import tapehead; tapehead.Client('http://127.0.0.1:9').close(); print(tapehead.__file__)"
    assert str(tmp_path) in run(python, "-c", program)


def test_server_and_cuda_are_one_server_on_two_builds_of_tensorflow() -> None:
    extras = PROJECT["optional-dependencies"]
    plain, cuda = ([one for one in extras[name] if not one.startswith("tensorflow")] for name in ("server", "cuda"))
    assert plain == cuda
    assert not any("cuda" in one for one in extras["server"])
    assert any(one.startswith("tensorflow[and-cuda]") for one in extras["cuda"])


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_requirement_is_pinned_and_hashed_and_no_registry_is_named(lock: Path) -> None:
    text = lock.read_text("utf-8")
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n|^ +# .*\n", "", text, flags=re.M))
    assert len(entries) > 40
    for entry in entries:
        assert PINNED.match(entry.splitlines()[0]), entry.splitlines()[0]
        assert "--hash=sha256:" in entry
    assert not re.search(r"https?:|index-url|find-links", text)


def test_the_pinned_lists_agree_so_that_one_venv_serves_them_all() -> None:
    pins: dict[tuple[str, str | None], set[str]] = {}
    for lock in LOCKS:
        for line in lock.read_text("utf-8").splitlines():
            if found := PINNED.match(line):
                # TensorFlow's two builds are told apart by other markers in the cuda list.
                pins.setdefault((found[1], None if found[1] == "tensorflow" else found[3]), set()).add(found[2])
    assert {name: versions for name, versions in pins.items() if len(versions) > 1} == {}
