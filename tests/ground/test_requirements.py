"""Version ranges and extras as doctor reads them, and the facts about the machine."""

from __future__ import annotations

import importlib.metadata
import os
import sys

import numpy as np
import pytest

from edgeprune import machine, requirements
from edgeprune.cli import doctor
from edgeprune.errors import DependencyError


@pytest.mark.parametrize(
    ("version", "bounds", "expected"),
    [
        ("2.13.0+cpu", ">=2.13,<2.14", True),
        ("2.13", "==2.13.0", True),
        ("2.14.0", ">=2.13,<2.14", False),
        ("1.9", ">=1.23", False),
        ("10.3.0.26", ">=10.3", True),
        ("0.1.3", "==0.1.2", False),
        ("3.0", ">2,<=3.0.0", True),
        ("3.0.1", ">2,<=3.0.0", False),
        ("5.0", "", True),
    ],
)
def test_ranges(version: str, bounds: str, expected: bool) -> None:
    assert requirements.in_range(version, bounds) is expected


def test_extras_come_with_what_they_stand_for() -> None:
    extras = requirements.extras()
    names = {extra: {item.name for item in items} for extra, items in extras.items()}
    assert names["cpu"] == {"onnxruntime"}
    assert names["export"] | {"jsonschema", "pytest"} <= names["dev"]
    assert "edgeprune" not in names["dev"]


def test_a_source_folder_without_a_toml_reader_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Python 3.10 without tomli."""

    def none(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", none)
    assert {"cpu", "dev"} <= set(requirements.extras())  # from pyproject.toml
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    with pytest.raises(DependencyError, match="pip install tomli"):
        requirements.extras()
    found = doctor.examine()
    assert (found["extras"], "tomli" in found["extras_problem"]) == ([], True)
    assert "extras: reading TOML needs Python 3.11" in doctor._text(found)


def test_a_requirement_says_why_it_is_not_met() -> None:
    assert requirements.Requirement("numpy", f"=={np.__version__}").problem == ""
    assert requirements.Requirement("numpy", ">=99").problem == f"numpy {np.__version__} is outside >=99"
    assert requirements.Requirement("no-such-package", "").problem == "no-such-package is not installed"


def test_machine_facts_are_those_of_this_machine() -> None:
    facts = machine.facts()
    assert facts["cores"] == len(os.sched_getaffinity(0))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
    assert 0 < facts["memory_free_mib"] <= facts["memory_mib"] <= round(pages * 1.01)
    assert facts["disk_free_mib"] > 0
    assert set(facts["cpu_flags"]) <= set(machine.cpu_flags())
