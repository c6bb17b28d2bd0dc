"""Artifacts: a content-addressed store, names and versions held to their bytes, and the sync with a model
tree.

Read in this order: ``manifest``, ``external``, ``source`` (what belongs to a model), ``store`` (where it is
kept), ``collecting``, ``registry`` (pins), ``refusals``, ``tree``, ``versions`` and ``sync`` (a ``--models`` folder). Not here: documents,
traffic.
"""

from headgate.registry.collecting import Collected, Unreferenced, collect, unreferenced
from headgate.registry.manifest import Entry, Manifest
from headgate.registry.offline import artifact_fault, artifact_folder, lone_blob_faults, model_fault
from headgate.registry.refusals import Refusal, Refusals, by_name
from headgate.registry.registry import Pins, Refused, Registry
from headgate.registry.source import Unsettled, model_file
from headgate.registry.store import ArtifactStore
from headgate.registry.sync import Admitted, Failed, SyncResult, TreeSync
from headgate.registry.tree import Found, Skipped, Survey, by_endpoint, scan, survey

__all__ = [
    "Admitted",
    "ArtifactStore",
    "Collected",
    "Entry",
    "Failed",
    "Found",
    "Manifest",
    "Pins",
    "Refusal",
    "Refusals",
    "Refused",
    "Registry",
    "Skipped",
    "Survey",
    "SyncResult",
    "TreeSync",
    "Unreferenced",
    "Unsettled",
    "artifact_fault",
    "artifact_folder",
    "by_endpoint",
    "by_name",
    "collect",
    "lone_blob_faults",
    "model_fault",
    "model_file",
    "scan",
    "survey",
    "unreferenced",
]
