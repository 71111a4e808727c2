"""Ready-made sets come from packages whose digests are known, or not at all; a package is read without installing."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from assembler import debian
from assembler.cli import app
from assembler.debian import Package
from assembler.errors import AssemblerError
from assembler.files import file_hash
from components.datasets import tuxpaint
from components.datasets.asterisk import transcripts
from components.datasets.tuxpaint import TuxPaint, noun

ROOT = "./usr/share/tuxpaint/stamps/"


def deb(path: Path, files: dict[str, bytes]) -> Package:
    """A Debian package with these files, put where it would be fetched to."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, content in (("debian-binary", b"2.0"), ("data.tar.xz", data.getvalue())):
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content)
            file.write(b"\n" * (len(content) % 2))
    return Package("stamps", "1", f"pool/{path.name}", file_hash(path))


def png(shade: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGBA", (300, 200), (shade, 0, 0, 128)).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def stamps(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSEMBLER_CACHE", str(tmp_path))
    files = {f"{ROOT}animals/{n}.png": png(n) for n in (1, 2)} | {f"{ROOT}symbols/3.png": png(3)}
    texts = {f"{ROOT}animals/1.txt": "A red frog.\nfr.utf8=x", f"{ROOT}symbols/3.txt": "Three."}
    texts[f"{ROOT}animals/2.txt"] = "A pair of socks, worn."
    package = deb(tmp_path / "debian" / "s.deb", files | {name: text.encode() for name, text in texts.items()})
    monkeypatch.setattr(tuxpaint, "PACKAGE", package)
    return package


def prepared(tmp_path, monkeypatch) -> TuxPaint:
    """The set with the digest that its stand-in has."""
    with pytest.raises(AssemblerError, match="has the digest") as told:
        TuxPaint().fetch(tmp_path)
    assert not TuxPaint().folder.exists()
    monkeypatch.setattr(TuxPaint, "digest", str(told.value).split("digest ")[1].split(",")[0])
    found = TuxPaint()
    found.fetch(tmp_path)
    return found


def test_a_recipe_prepares_what_its_package_holds(stamps, tmp_path, monkeypatch):
    rows = prepared(tmp_path, monkeypatch).rows(tmp_path)
    assert {row["caption"]: row["noun"] for row in rows} == {"A red frog.": "frog", "A pair of socks, worn.": "socks"}
    assert all(row["image"].size == (128, 85) and row["image"].mode == "RGB" for row in rows)
    assert len(TuxPaint(symbols=True).rows(tmp_path)) == 3 and len(TuxPaint(limit=1).rows(tmp_path)) == 1


def test_a_set_that_is_not_here_says_how_to_bring_it(stamps, tmp_path):
    with pytest.raises(AssemblerError, match="run `assembler data fetch tuxpaint`"):
        TuxPaint().rows(tmp_path)


def test_another_file_than_the_known_one_is_refused(stamps, tmp_path):
    stamps.path.write_bytes(stamps.path.read_bytes() + b"\0")
    with pytest.raises(AssemblerError, match=r"is not the stamps 1 that is known; put the file of http.* at "):
        TuxPaint().fetch(tmp_path)


def test_without_apt_the_sentence_says_what_to_do(stamps, tmp_path, monkeypatch):
    stamps.path.unlink()
    monkeypatch.setattr(debian.shutil, "which", lambda name: None)
    with pytest.raises(AssemblerError, match=r"apt-get, which is not here; put the file of http.*sha256"):
        TuxPaint().fetch(tmp_path)


@pytest.mark.parametrize("content", [b"", b"!<arch>\n", b"!<arch>\n" + b"x" * 60, b"not a package"])
def test_a_damaged_package_is_told(content, tmp_path, monkeypatch):
    monkeypatch.setenv("ASSEMBLER_CACHE", str(tmp_path))
    package = Package("stamps", "1", "pool/s.deb", "0")
    package.path.parent.mkdir()
    package.path.write_bytes(content)
    with pytest.raises(AssemblerError, match=r"s\.deb is no Debian package|has no data|no ar archive"):
        list(package.members())


@pytest.mark.parametrize(
    ("caption", "word"),
    [
        ("A frog.", "frog"),
        ("A flag on a pole.", "flag"),
        ("A head of lettuce.", "lettuce"),
        ("A flower covered in dew drops.", "flower"),
        ("The red light means you must stop now.", "light"),
        ("A red and white anemone flower.", "flower"),
        ("Tux and spider - two friends.", "tux"),
        ("\u201cGive Way\u201d means you have to let other people go first.", "way"),
        ("Pluto\u2014until recently, it was considered the 9th planet.", "pluto"),
        ("School ahead! Drive slowly!", "school"),
    ],
)
def test_the_noun_of_a_caption(caption, word):
    assert noun(caption) == word


def test_a_file_name_tells_its_words():
    found = transcripts()
    assert [found[x] for x in ("digits/h-3", "digits/mon-0", "phonetic/x_p", "is-in-use", "vm-and")] == [
        "third",
        "january",
        "xray",
        "is in use",
        "and",
    ]


def test_the_command_lists_the_sets_with_their_licences():
    done = CliRunner().invoke(app, ["data", "fetch"])
    assert done.exit_code == 0 and "tuxpaint: Debian package" in done.output and "GPL-2" in done.output
    assert CliRunner().invoke(app, ["data", "fetch", "tuxpain"]).exit_code == 1
