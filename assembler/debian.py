"""Debian packages as a source of data: fetched and checked by apt's own tools, read here, never installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from assembler.errors import AssemblerError, told
from assembler.files import file_hash
from assembler.weights import cache_folder

MIRROR = "http://deb.debian.org/debian/"
MAX_MEMBER = 64 * 2**20


@dataclass(frozen=True)
class Package:
    """One version of a package that is the same on every architecture; `pool` is its path on a Debian mirror."""

    name: str
    version: str
    pool: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where it is kept once it is fetched."""
        return cache_folder() / "debian" / self.pool.rpartition("/")[2]

    def fetch(self) -> Path:
        """The package's file, downloaded by `apt-get download` if it is not here yet; nothing is installed.

        Raises:
            AssemblerError: there is no apt-get, it cannot bring this version, or what it brings is another file.
        """
        if not self.path.is_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=self.path.parent) as folder:
                os.replace(self._download(Path(folder)), self.path)
        if file_hash(self.path) != self.sha256:
            raise AssemblerError(f"{self.path} is not the {self.name} {self.version} that is known; {self._by_hand}")
        return self.path

    @property
    def _by_hand(self) -> str:
        return f"put the file of {MIRROR}{self.pool} (sha256 {self.sha256}) at {self.path}"

    def _download(self, folder: Path) -> Path:
        if shutil.which("apt-get") is None:
            raise AssemblerError(f"{self.name} is fetched with apt-get, which is not here; {self._by_hand}")
        command = ["apt-get", "--quiet", "download", f"{self.name}={self.version}"]
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        found = list(folder.glob("*.deb"))
        if done.returncode or len(found) != 1:
            reason = next((x for x in done.stderr.splitlines() if x.startswith("E:")), "it gave no reason")
            raise AssemblerError(
                f"apt-get could not download {self.name} {self.version} ({reason.removeprefix('E:').strip()}); run "
                f"`apt-get update` as root, or {self._by_hand}"
            )
        return found[0]

    def members(self) -> Iterator[tuple[str, IO[bytes]]]:
        """The package's files, one after the other as they are unpacked: path and content; none is written to disk."""
        with told(f"{self.path} is no Debian package that can be read"), self.path.open("rb") as file:
            name = _data_member(file)
            mode = {".xz": "r|xz", ".gz": "r|gz", ".tar": "r|"}.get(Path(name).suffix)
            if mode is None:
                raise AssemblerError(f"{self.path} is packed as {name}, which is not read here")
            with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
                for member in archive:
                    if member.isfile() and member.size <= MAX_MEMBER:
                        content = archive.extractfile(member)
                        assert content is not None
                        yield member.name.removeprefix("./"), content


def _data_member(file: IO[bytes]) -> str:
    """Bring `file`, an ar archive, to the beginning of its data.tar.* and say what that is called."""
    if file.read(8) != b"!<arch>\n":
        raise AssemblerError("it is no ar archive")
    while header := file.read(60):  # name, four numbers, size, end
        name, size = header[:16].decode("ascii").strip().rstrip("/"), int(header[48:58])
        if name.startswith("data.tar"):
            return name
        file.seek(size + size % 2, os.SEEK_CUR)
    raise AssemblerError("it has no data.tar")
