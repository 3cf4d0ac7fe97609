"""Where numba keeps compiled kernels: beside the sources, else in the home folder's cache, else in a temporary folder, else nowhere.

numba by itself tries the first two and raises RuntimeError where neither can be written to, as in a read-only installation run by a user
without a home. `choose` therefore runs when the package is imported, before any kernel is declared.
"""

from __future__ import annotations

import atexit
import os
import stat
import sys
from pathlib import Path

_KERNELS = Path(__file__).resolve().parent / "ops" / "__pycache__"  # one of the folders beside the sources; they are alike
kept_in: Path | None = None
"""The folder of this process; None: kernels are not kept."""
is_makeshift = False
"""Neither the installation nor the home folder can be written to."""


def choose() -> None:
    """Point NUMBA_CACHE_DIR at a temporary folder if numba would find none, and turn its cache off if there is no such folder either."""
    global kept_in, is_makeshift
    kept_in = find()
    is_makeshift = kept_in is None
    if not is_makeshift:
        return
    kept_in = _temporary()
    if kept_in is None:
        from numba.core.dispatcher import Dispatcher

        # kernels are compiled anew in every process; mypy lets nobody assign to a method
        setattr(Dispatcher, "enable_caching", lambda self: None)  # noqa: B010
        return
    os.environ["NUMBA_CACHE_DIR"] = str(kept_in)  # worker processes inherit it
    if "numba" in sys.modules:  # which has read the environment already
        sys.modules["numba"].config.CACHE_DIR = str(kept_in)


def find() -> Path | None:
    """The first folder that can be written to of those that numba tries: $NUMBA_CACHE_DIR, beside the sources, the home folder's cache."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given and _accepts_files(Path(given)):
        return Path(given)
    if os.access(next(place for place in (_KERNELS, *_KERNELS.parents) if place.exists()), os.W_OK):
        return _KERNELS.parents[1]
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "numba")
    return home if _accepts_files(home) else None


def _accepts_files(folder: Path) -> bool:
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _temporary() -> Path | None:
    """A folder that only this user can write to, the same in every process where possible: what lies there is run as code."""
    import shutil
    import tempfile

    try:
        folder = Path(tempfile.gettempdir(), f"frustum-kernels-{os.getuid() if hasattr(os, 'getuid') else 'user'}")
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        is_own = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o077)
        if stat.S_ISDIR(found.st_mode) and is_own and _accepts_files(folder):
            return folder
        own = Path(tempfile.mkdtemp(prefix="frustum-kernels-"))
    except OSError:
        return None
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own
