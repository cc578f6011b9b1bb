"""The package as it is built and installed: sdist, wheel, an environment without the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.metadata import Metadata

import fairseq_admin
from fairseq_admin_cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(sysconfig.get_path("purelib"))
PACKAGES = ("fairseq_admin", "fairseq_admin_cli")
BUILD = "from setuptools.build_meta import build_{0}; print(build_{0}({1!r}))"
IN_ONE_PROCESS = """
import sys
from fairseq_cli.train import cli_main

sys.argv[1:] = "nowhere --user-dir fairseq_admin --task translation_admin --max-tokens 9".split()
sys.argv += ["--arch", "transformer_admin"]
try:
    cli_main()
except SystemExit as end:
    print("training:", end)

import fairseq_admin
from fairseq_admin_cli.main import COMMANDS, main

for name in COMMANDS:
    try:
        main([name, "--help"])
    except SystemExit as end:
        print("command:", name, end.code)
print("from:", fairseq_admin.__file__)
"""


def run(*command, cwd) -> str:
    """stdout of a command that must succeed, away from the checkout."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What `python -m build` makes: an sdist of the checkout, a wheel of the sdist."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    source.mkdir()
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package)
    for path in ROOT.iterdir():  # no build/ in the checkout
        if path.is_file():
            shutil.copy(path, source)
    run(sys.executable, "-c", BUILD.format("sdist", str(folder)), cwd=source)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    run(sys.executable, "-c", BUILD.format("wheel", str(folder)), cwd=unpacked)
    (wheel,) = folder.glob("*.whl")
    return SimpleNamespace(unpacked=unpacked, wheel=wheel, folder=folder)


@pytest.fixture(scope="module")
def installed(built):
    """An environment that holds the wheel and what it needs, the latter lent by this one.

    fairseq is copied: it looks for a bare --user-dir beside itself, also where it is a link."""
    home = built.folder / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=built.folder)
    site = home / SITE.relative_to(sys.prefix)
    for path in SITE.iterdir():
        if "fairseq_admin" not in path.name and path.name not in ("fairseq", "__pycache__"):
            (site / path.name).symlink_to(path)
    shutil.copytree(SITE / "fairseq", site / "fairseq")
    pip = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install"]
    run(*pip, "--no-deps", "--no-index", built.wheel, cwd=built.folder)
    return SimpleNamespace(bin=home / "bin", site=site)


def test_metadata(built):
    """As an index wants it: valid, with README, licence, links and the tested Python versions."""
    with zipfile.ZipFile(built.wheel) as archive:
        names = archive.namelist()
        (name,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        found = Metadata.from_email(archive.read(name), validate=True)
    assert str(found.version) == fairseq_admin.__version__
    assert found.license_expression == "MIT" and any(n.endswith("/LICENSE") for n in names)
    assert found.description_content_type == "text/markdown"
    assert found.description.strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    assert found.project_urls and all(
        url.startswith("https://") for url in found.project_urls.values()
    )
    versions = {c.rpartition(" ")[2] for c in found.classifiers if "Python :: 3." in c}
    assert versions == {"3.11", "3.12", "3.13"}
    assert {"analysis", "demo", "plot", "serve", "slurm", "test"} == set(found.provides_extra)


def test_every_file_of_the_package_is_in_both(built):
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*.*"))
    here = {path.relative_to(ROOT).as_posix() for path in paths}
    here = {name for name in here if not name.endswith(".pyc")}
    with zipfile.ZipFile(built.wheel) as archive:
        wheel = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert wheel == here
    assert all((built.unpacked / name).is_file() for name in {*here, "CHANGELOG.md", "LICENSE"})


def test_the_command(installed, tmp_path):
    out = run(installed.bin / "fairseq-admin", "--version", cwd=tmp_path)
    assert out.strip() == fairseq_admin.__version__


def test_the_plugin_and_every_command_from_any_folder(installed, tmp_path):
    out = run(installed.bin / "python", "-W", "ignore", "-c", IN_ONE_PROCESS, cwd=tmp_path)
    said = [line.partition(": ") for line in out.splitlines()]
    (trained,) = (text for what, _, text in said if what == "training")
    assert "no such data folder" in trained  # the plugin's task says so
    commands = [text for what, _, text in said if what == "command"]
    assert commands == [f"{name} 0" for name in COMMANDS]
    (where,) = (text for what, _, text in said if what == "from")
    assert Path(where).parent.samefile(installed.site / "fairseq_admin")
