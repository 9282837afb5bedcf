"""Every RPC, route, flag, config field and sharp edge has a proof that exists."""

from __future__ import annotations

import ast
import functools
import re
import string
from pathlib import Path

import pytest

from servingd.config.flags.parser import FLAGS
from servingd.wire import protos
from tests.unit.frontends import surface

TESTS = Path(__file__).parents[2]
DESIGN = TESTS.parent / "servingd" / "DESIGN.md"

CONFIG_MESSAGES = (
    "ModelServerConfig",
    "ModelConfigList",
    "ModelConfig",
    "LoggingConfig",
    "SSLConfig",
    "MonitoringConfig",
    "PrometheusConfig",
    "PlatformConfigMap",
    "PlatformConfig",
    "ThreadPoolFactoryConfig",
    "BatchingParameters",
    "ModelWarmupOptions",
    "SavedModelBundleSourceAdapterConfig",
    "SessionBundleConfig",
)


@functools.cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text())
    return frozenset(n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))


@functools.cache
def decisions() -> frozenset[str]:
    return frozenset(re.findall(r"^\*\*(\d{3}) ", DESIGN.read_text(), re.M))


TABLES = {name: getattr(surface, name) for name in ("RPCS", "ROUTES", "FLAGS", "FIELDS", "EDGES")}


@pytest.mark.parametrize(
    ("table", "part"), [(name, part) for name, table in TABLES.items() for part in table]
)
def test_the_proof_exists(table: str, part: str) -> None:
    proof = TABLES[table][part]
    if proof.startswith("DESIGN "):
        assert proof.removeprefix("DESIGN ") in decisions()
    else:
        file, _, name = proof.partition("::")
        assert name in names_in(file)


def test_every_rpc_has_a_row() -> None:
    known = {
        method.full_name
        for service, file in protos.FILES.items()
        for method in file.services_by_name[service.rpartition(".")[2]].methods
        if service.startswith("tensorflow.")
    }
    assert known == surface.RPCS.keys()


def test_every_flag_of_tensorflow_serving_has_a_row() -> None:
    theirs = {name for name, field in FLAGS.items() if not field.metadata["ours"]}
    assert theirs == surface.FLAGS.keys()
    assert len(theirs) == 48


def test_every_config_field_has_a_row() -> None:
    known = {
        f"{message}.{field.name}"
        for message in CONFIG_MESSAGES
        for field in getattr(protos, message).DESCRIPTOR.fields
    }
    assert known == surface.FIELDS.keys()


def test_every_sharp_edge_has_a_row() -> None:
    assert surface.EDGES.keys() == {*map(str, range(1, 69)), *string.ascii_lowercase}
