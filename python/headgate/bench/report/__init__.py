"""Reports of results: one HTML page, CSV files, an HdrHistogram log, and several load hosts' results put together.

Read in this order: ``reading`` (what a report tells), ``charts`` over ``svg``, ``page`` (the HTML), ``csv_files``, ``hlog``, ``merge``,
``files`` (all of them into a folder). A report computes no statistics: it shows those of the result.
"""

from __future__ import annotations

from headgate.bench.report.files import write_all

__all__ = ["write_all"]
