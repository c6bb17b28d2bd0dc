"""Load and capacity: what rate an endpoint holds within an objective, measured by the generator of the data plane.

Read in this order: ``scenario`` (what is asked for), ``data`` and ``encoding`` (the requests), ``target`` and ``spawn`` (the server),
``measuring`` (one load), ``search`` (which rate next), ``find`` and ``run`` (the commands' work), ``results`` (the file). Not here: the
generator and the statistics (the crates ``load`` and ``core``), the words for a terminal (``headgate.cli``).
"""
