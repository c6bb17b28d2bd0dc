"""The benches are no package that is installed: their folder's parent is where they are imported from."""

from __future__ import annotations

import sys

from support.models import ROOT

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
