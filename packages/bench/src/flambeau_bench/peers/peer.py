"""``Peer``: a library that a user might take instead, with its environment and its programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from flambeau.errors import ArgumentError, InputError, did_you_mean

ENTRY_POINTS = "flambeau.bench_peers"
"""Entry-point group of peers from other packages; each value is a ``Peer``."""

FLAMBEAU, PLAIN = "flambeau", "plain"
"""The side that is compared with each peer, and the reference that is written in plain PyTorch."""

_FILES = ("*.py", "peers_*.json", "uv.lock")

BASELINES = Path(__file__).parents[3] / "baselines"
"""The folder of the baselines; in a checkout only."""


@dataclass(frozen=True)
class Peer:
    """A library as a side.

    Attributes:
        name: Name on the command line and in results.
        folder: Folder of its programs, ``CASE_NAME.py`` with underscores; with a ``pyproject.toml``
            and ``uv.lock`` it is a project with a separate environment, else its programs run in
            this interpreter.
        only_program: The program for every case, in place of those in ``folder``.
    """

    name: str
    folder: Path
    only_program: Path | None = None

    @property
    def is_project(self) -> bool:
        """Whether it has a separate environment."""
        return (self.folder / "pyproject.toml").is_file()

    def program(self, case: str) -> Path | None:
        """Return its program for a case; None if it has none."""
        path = self.only_program or self.folder / f"{case.replace('-', '_')}.py"
        return path if path.is_file() else None

    def files(self) -> list[Path]:
        """Return the files that determine what it does: programs, settings, lock file."""
        found = [path for pattern in _FILES for path in self.folder.glob(pattern)]
        return sorted(path for path in found if path.is_file())


def known_peers() -> dict[str, Peer]:
    """Return the peers of this checkout and of installed packages, by name.

    The baselines are not part of the wheel, so they are found in a checkout only.

    Raises:
        ArgumentError: Two peers have the same name.
    """
    found: dict[str, Peer] = {}
    if BASELINES.is_dir():
        folders = sorted(path for path in BASELINES.iterdir() if path.is_dir())
        found = {path.name: Peer(path.name, path) for path in folders if any(path.glob("*.py"))}
    for entry in entry_points(group=ENTRY_POINTS):
        peer: Peer = entry.load()
        if peer.name in found:
            raise ArgumentError(
                f"Two peers have the name {peer.name!r}: that of {entry.value} and "
                f"{found[peer.name].folder}. Rename or uninstall one of them."
            )
        found[peer.name] = peer
    return found


def no_checkout_reason() -> str:
    """Return why the baselines cannot be found; empty if they are there."""
    if BASELINES.is_dir():
        return ""
    return (
        "the peers are not part of the wheel; they need a checkout of the repository, where they "
        "are in packages/bench/baselines (user-defined peers: --peers PATH)"
    )


def choose_peers(names: Sequence[str], case: str) -> list[Peer]:
    """Return the peers to compare with, without ``flambeau`` and ``plain``, which always take part.

    Args:
        names: Names, folders of uv projects, or programs (``PATH.py``, run in this interpreter);
            all known peers with a program for ``case`` if empty.
        case: Name of the case.

    Raises:
        ArgumentError: A name is unknown.
        InputError: A path is neither a folder nor a Python program.
    """
    known = known_peers()
    if not names:
        return [
            peer
            for name, peer in known.items()
            if name not in {FLAMBEAU, PLAIN} and peer.program(case) is not None
        ]
    chosen = [known[name] if name in known else _from_path(name, known) for name in names]
    return [peer for peer in chosen if peer.name not in {FLAMBEAU, PLAIN}]


def _from_path(text: str, known: Mapping[str, Peer]) -> Peer:
    path = Path(text).expanduser().resolve()
    if path.suffix == ".py" and path.is_file():
        return Peer(path.stem, path.parent, path)
    if path.is_dir():
        return Peer(path.name, path)
    if "/" in text or "\\" in text or path.suffix == ".py":
        raise InputError(
            f"--peers names {text}, but this folder or program does not exist. Give a folder with "
            "programs, or one program (PATH.py)."
        )
    raise ArgumentError(f"Unknown peer {text!r}. {did_you_mean(text, known)}")
