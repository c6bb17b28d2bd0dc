"""What the control plane knows without asking anybody: traffic, the merge, revisions, plans, results.

Pure: values in, values out; no store, no data plane, no clock, no thread.
Read in this order: ``shares``, ``traffic``, ``merge``, ``spec``, ``revision``, ``plan``.
"""
