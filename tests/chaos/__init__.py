"""A gateway under random writes, requests and faults, compared with a model in pure Python. Read first: ``sequence``, then ``suite``."""
