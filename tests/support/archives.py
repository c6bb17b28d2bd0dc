"""Archives that are kept beside the tests."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path


def extract(tar: tarfile.TarFile, folder: Path, members: Iterable[tarfile.TarInfo] | None = None) -> None:
    """Extracts an archive of our own with all that it says of its members.

    Python 3.11.0 to 3.11.3 have no filters; later ones ask for one.
    """
    tar.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
    tar.extractall(folder, members)
