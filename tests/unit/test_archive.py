"""corpora.archive: the files asked for, whole, or one line and nothing."""

import gzip
import io
import multiprocessing
import platform
import random
import stat
import tarfile
import time
import zipfile

import pytest

from corpora.archive import extract
from fairseq_admin.errors import UserError
from fairseq_admin.files import locked
from tests.helpers import limited

GERMAN, ENGLISH = (bytes(random.Random(i).choices(range(256), k=200_000)) for i in (1, 2))
FILES = {"de-en/train.de": GERMAN, "de-en/train.en": ENGLISH, "de-en/README": b"read me\n"}
WANTED = ["de-en/train.de", "de-en/train.en"]


def make_tar(path, files=FILES, special=(), mode="w:gz", prefix="./"):
    """An archive of *files*, and then of members (name, type, target)."""
    with tarfile.open(path, mode) as tar:
        for name, content in files.items() if isinstance(files, dict) else files:
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, kind, target in special:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    return path


def make_zip(path, files=FILES, special=()):
    """The same as a zip file; *special*: name, file type bits, content."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
        for name, kind, content in special:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (kind | 0o644) << 16
            file.writestr(info, content)
    return path


def files_in(folder):
    """Content by path, without the stamp."""
    paths = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def assert_refused(archive, members, why):
    """One line that says *why*, and the folder as it was."""
    folder = archive.parent / "out"
    before = files_in(folder) if folder.exists() else None
    with pytest.raises(UserError) as error:
        extract(archive, members, folder)
    assert why in error.value.message
    assert "\n" not in error.value.message
    assert (files_in(folder) if folder.exists() else None) == before
    assert {p.name for p in archive.parent.iterdir()} <= {archive.name, "out.lock", folder.name}


@pytest.mark.parametrize("name, mode", [("a.tgz", "w:gz"), ("a.tar.gz", "w:gz"), ("a.tar", "w")])
def test_tar(tmp_path, name, mode):
    extract(make_tar(tmp_path / name, mode=mode), ["./" + WANTED[0], WANTED[1]], tmp_path / "out")
    assert files_in(tmp_path / "out") == {name: FILES[name] for name in WANTED}
    assert {path.name for path in tmp_path.iterdir()} == {name, "out", "out.lock"}


def test_zip(tmp_path):
    archive = make_zip(tmp_path / "a.zip", special=[("link", stat.S_IFLNK, "de-en/README")])
    extract(archive, WANTED, tmp_path / "out")
    assert files_in(tmp_path / "out") == {name: FILES[name] for name in WANTED}


def test_gz_is_one_file(tmp_path):
    archive = tmp_path / "corpus.de.gz"
    archive.write_bytes(gzip.compress(GERMAN))
    extract(archive, ["corpus.de"], tmp_path / "out")
    assert files_in(tmp_path / "out") == {"corpus.de": GERMAN}
    assert_refused(archive, ["corpus.en"], "no corpus.en in it; the nearest is corpus.de")


def test_finished_folder_is_left_alone_until_it_differs(tmp_path):
    archive, out = make_tar(tmp_path / "a.tgz"), tmp_path / "out"

    def made_anew(members):
        before = out.stat().st_ino, [p.stat().st_ino for p in sorted(out.rglob("*"))]
        extract(archive, members, out)
        return before != (out.stat().st_ino, [p.stat().st_ino for p in sorted(out.rglob("*"))])

    extract(archive, WANTED, out)
    assert not made_anew(WANTED[::-1])
    assert made_anew(WANTED[:1]) and list(files_in(out)) == WANTED[:1]
    (out / WANTED[0]).write_bytes(b"cut")
    assert made_anew(WANTED[:1]) and files_in(out)[WANTED[0]] == GERMAN
    make_tar(archive, {WANTED[0]: b"new"})
    assert made_anew(WANTED[:1]) and files_in(out)[WANTED[0]] == b"new"


def test_a_folder_of_others_is_not_replaced(tmp_path):
    archive, out = make_tar(tmp_path / "a.tgz"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    assert_refused(archive, WANTED, "was not made from an archive")
    (out / "thesis.tex").unlink()
    extract(archive, WANTED, out)  # an empty one holds nothing to lose
    assert set(files_in(out)) == set(WANTED)


@pytest.mark.parametrize(
    "name, kind, target",
    [
        ("/etc/absolute", tarfile.REGTYPE, ""),
        ("../above", tarfile.REGTYPE, ""),
        ("de-en/../../above", tarfile.REGTYPE, ""),
        ("device", tarfile.CHRTYPE, ""),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("link", tarfile.SYMTYPE, "/etc/passwd"),
        ("de-en/link", tarfile.SYMTYPE, "../../above"),
        ("hard", tarfile.LNKTYPE, "../above"),
    ],
)
def test_tar_with_one_unsafe_member_is_refused(tmp_path, name, kind, target):
    archive = make_tar(tmp_path / "a.tgz", special=[(name, kind, target)])
    assert_refused(archive, WANTED, "refused: ")


@pytest.mark.parametrize(
    "name, kind, content",
    [
        ("/etc/absolute", stat.S_IFREG, "x"),
        ("../above", stat.S_IFREG, "x"),
        ("device", stat.S_IFCHR, ""),
        ("link", stat.S_IFLNK, "/etc/passwd"),
        ("de-en/link", stat.S_IFLNK, "../../above"),
    ],
)
def test_zip_with_one_unsafe_member_is_refused(tmp_path, name, kind, content):
    assert_refused(
        make_zip(tmp_path / "a.zip", special=[(name, kind, content)]), WANTED, "refused: "
    )


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_wanted_member_must_be_a_file(tmp_path, kind):
    archive = make_tar(tmp_path / "a.tgz", special=[("link", kind, "de-en/README")])
    assert_refused(archive, ["link"], "link is a folder or a link")
    extract(archive, WANTED, tmp_path / "out")  # one that stays inside is no harm elsewhere


def test_missing_and_double_members(tmp_path):
    archive = make_tar(tmp_path / "a.tgz")
    assert_refused(archive, [*WANTED, "train.fr"], "no train.fr in it; the nearest is de-en/")
    assert_refused(archive, ["../x"], "leads out of the folder")
    make_tar(archive, [*FILES.items(), (WANTED[0], b"other")])
    assert_refused(archive, WANTED, f"{WANTED[0]} is in it twice")
    assert_refused(archive, [WANTED[0], "x"], "twice")
    extract(archive, WANTED[1:], tmp_path / "out")


@pytest.mark.parametrize("name", ["a.tgz", "a.tar", "a.zip", "corpus.gz"])
@pytest.mark.parametrize("damage", ["cut in the middle", "cut at the end", "changed", "empty"])
def test_damaged_archive(tmp_path, name, damage):
    """Damage lies behind the members that are wanted, and is found; a finished folder stays."""
    archive, wanted = tmp_path / name, WANTED[:1]
    if name == "a.zip":
        make_zip(archive)
    elif name == "corpus.gz":
        archive.write_bytes(gzip.compress(GERMAN))
        wanted = ["corpus"]
    else:
        make_tar(archive, mode="w" if name == "a.tar" else "w:gz")
    extract(archive, wanted, tmp_path / "out")
    content = bytearray(archive.read_bytes())
    if damage == "cut in the middle":
        del content[len(content) * 3 // 4 :]
    elif damage == "cut at the end":
        del content[400_000 + 5 * 512 if name == "a.tar" else -6 :]
    elif damage == "changed" and name == "a.tar":
        at = content.index(b"./de-en/train.en")
        content[at + 2] ^= 1  # a header: nothing else of a .tar has a checksum
    elif damage == "changed":
        content[300_000 if len(content) > 300_000 else 100_000] ^= 1
    else:
        content.clear()
    archive.write_bytes(content)
    assert_refused(archive, wanted, "is damaged")


def test_not_an_archive(tmp_path):
    for name, why in [("a.tgz", "damaged"), ("a.zip", "damaged"), ("a.rar", "known endings")]:
        archive = tmp_path / "in" / name
        archive.parent.mkdir(exist_ok=True)
        archive.write_bytes(b"<html>404</html>" * 100)
        assert_refused(archive, ["x"], why)
        archive.unlink()
    with pytest.raises(UserError, match="cannot read"):
        extract(tmp_path / "none.tgz", ["x"], tmp_path / "out")


def test_full_disk(tmp_path):
    archive, out = make_tar(tmp_path / "a.tgz"), tmp_path / "out"
    with limited(100_000), pytest.raises(UserError, match="cannot write"):
        extract(archive, WANTED, out)
    assert {p.name for p in tmp_path.iterdir()} == {"a.tgz", "out.lock"}
    extract(archive, WANTED, out)
    assert files_in(out)[WANTED[0]] == GERMAN


def test_who_waited_uses_what_is_there_then(tmp_path, capfd):
    archive, out = make_tar(tmp_path / "a.tgz"), tmp_path / "out"
    extract(archive, WANTED, tmp_path / "made")
    context = multiprocessing.get_context("fork")
    go = context.Event()
    process = context.Process(target=lambda: go.wait() and extract(archive, WANTED, out))
    process.daemon = True
    process.start()  # before the lock is taken, which a forked process would hold too
    end, said = time.monotonic() + 10, ""
    with locked(out, "extraction"):
        go.set()
        while f"waiting for another extraction of {out}" not in said:
            assert time.monotonic() < end, "never waited"
            said += capfd.readouterr().err
            time.sleep(0.01)
        (tmp_path / "made").rename(out)
        before = out.stat().st_ino
    process.join(10)
    assert process.exitcode == 0 and out.stat().st_ino == before


def test_remains_of_a_killed_process_go(tmp_path):
    """Also where the folder was finished before it was killed."""
    archive, out = make_tar(tmp_path / "a.tgz"), tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    for kind in ("partial", "old"):
        remains = tmp_path / f"out.{platform.node()}.{process.pid}.{kind}" / "de-en" / "train.de"
        for _ in range(2):
            remains.parent.mkdir(parents=True)
            remains.write_bytes(b"half")
            out.mkdir(exist_ok=True)
            extract(archive, WANTED, out)
            assert files_in(out)[WANTED[0]] == GERMAN
            assert {path.name for path in tmp_path.iterdir()} == {"a.tgz", "out", "out.lock"}
