"""Typed documents: reading, checking, schema.

Read in this order: ``faults`` (what a fault is), ``values`` (the grammar of single values), ``nodes`` and
``reading`` (bytes to trees), ``files`` (references), ``model`` and ``rollout`` (the fields),
``checks``, ``parsing``, ``locating``, ``schema``, ``from_tree``. Not here: durable state (``headgate.store``), artifacts
(``headgate.registry``).
"""

from headgate.documents.checks import kinds
from headgate.documents.defaults import Defaults
from headgate.documents.faults import Fault, policy_invalid
from headgate.documents.fields import ConstantValue
from headgate.documents.files import locate
from headgate.documents.from_tree import (
    from_models_tree,
    highest,
    models_tree_source,
    models_tree_text,
)
from headgate.documents.locating import LocatedFiles, locate_files
from headgate.documents.model import API_VERSION, Endpoint, Version
from headgate.documents.parsing import (
    Document,
    Files,
    Kinds,
    OtherDocument,
    Parsed,
    parse,
    parse_each,
    parse_one,
)
from headgate.documents.rollout import RolloutPlan
from headgate.documents.schema import json_schema
from headgate.documents.values import (
    SLOTS,
    check_name,
    format_duration,
    format_weight,
    is_name,
    natural_key,
    parse_duration,
    parse_size,
    parse_weight,
)

__all__ = [
    "API_VERSION",
    "SLOTS",
    "ConstantValue",
    "Defaults",
    "Document",
    "Endpoint",
    "Fault",
    "Files",
    "Kinds",
    "LocatedFiles",
    "OtherDocument",
    "Parsed",
    "RolloutPlan",
    "Version",
    "check_name",
    "format_duration",
    "format_weight",
    "from_models_tree",
    "highest",
    "is_name",
    "json_schema",
    "kinds",
    "locate",
    "locate_files",
    "models_tree_source",
    "models_tree_text",
    "natural_key",
    "parse",
    "parse_duration",
    "parse_each",
    "parse_one",
    "parse_size",
    "parse_weight",
    "policy_invalid",
]
