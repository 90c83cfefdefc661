"""Pinned source packages: fetched with the package manager's own client, verified, unpacked."""

import hashlib
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One source: `kind` is "deb" (Debian) or "npm"; `sha256` is that of the package file."""

    kind: str
    name: str
    version: str
    sha256: str
    homepage: str

    @property
    def file(self) -> str:
        """Name of the package file as its client saves it."""
        if self.kind == "npm":
            return f"{self.name}-{self.version}.tgz"
        return f"{self.name}_{self.version.replace(':', '%3a')}_all.deb"


OPENCLIPART = Package(
    "deb",
    "openclipart-png",
    "1:0.18+dfsg-19",
    "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
    "https://packages.debian.org/openclipart-png",
)
FASHION = Package(
    "deb",
    "dataset-fashion-mnist",
    "0.0~git20200523.55506a9-1",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    "https://github.com/zalandoresearch/fashion-mnist",
)
NOTO = Package(
    "npm",
    "emoji-datasource-google",
    "16.0.0",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "https://github.com/googlefonts/noto-emoji",
)
TWEMOJI = Package(
    "npm",
    "emoji-datasource-twitter",
    "16.0.0",
    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    "https://github.com/jdecked/twemoji",
)


def fetch(package: Package, folder: Path) -> Path:
    """Return the package file in `folder`, fetched there if missing; its SHA-256 must be the pinned one."""
    path = folder / package.file
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if package.kind == "deb":
            command = ["apt-get", "download", f"{package.name}={package.version}"]
        else:
            command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    met = hashlib.sha256(path.read_bytes()).hexdigest()
    if met != package.sha256:
        raise ValueError(
            f"{path}: SHA-256 is {met}, expected {package.sha256} ({package.name} {package.version})"
        )
    return path


def unpack(package: Package, folder: Path) -> Path:
    """Folder that holds the unpacked package, below `folder`."""
    path, target = fetch(package, folder), folder / "unpacked" / package.name
    if not target.exists():
        partial = target.with_name(target.name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        if package.kind == "deb":
            subprocess.run(["dpkg-deb", "-x", str(path), str(partial)], check=True)
        else:
            with tarfile.open(path) as archive:
                archive.extractall(partial, filter="data")
        partial.rename(target)
    return target
