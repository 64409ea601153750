"""Unity Catalog's registry and the files API through `databricks-sdk`, unmodified; with a token and with OAuth M2M."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vendor_client import run_client

from server_process import ServerProcess

SCRIPT = Path(__file__).with_name("sdk_databricks_catalog.py")
LARGE_BYTES = 60 * 1024 * 1024
"""The SDK begins what has 50 MiB and more in parts."""


@pytest.fixture(scope="module")
def told(shared_server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the SDK saw."""
    large = tmp_path_factory.mktemp("files") / "large.bin"
    large.write_bytes(bytes(range(256)) * (LARGE_BYTES // 256))
    with shared_server.client() as client:
        me = client.get("/headrace/v1/whoami").json()
    return run_client(
        "HEADRACE_TEST_DATABRICKS_PYTHON", SCRIPT, shared_server.url, shared_server.key, me["key_id"], str(large)
    )


def test_names_of_three_levels(told: Any) -> None:
    """Made, listed, refused by the SDK's own exceptions; the catalog system.ai is filled and nobody's to change."""
    catalog = told["catalog"]
    assert catalog["made"] == ["ml.llm.fm", "ml", "It flows."]
    assert catalog["again"][0] == "ResourceAlreadyExists"
    assert catalog["missing"][0] == "ResourceDoesNotExist"
    assert catalog["bad_name"][0] in ("InvalidParameterValue", "BadRequest")
    assert catalog["catalogs"] == ["ml", "system"]
    assert catalog["schemas"] == ["ml.llm"]
    assert catalog["listed"] == ["ml.llm.fm"]
    assert len(catalog["system"]) > 40
    assert catalog["system"] == sorted(set(catalog["system"]))
    assert catalog["read_only"][0] == "PermissionDenied"


def test_files(told: Any) -> None:
    """What was uploaded comes back byte for byte, also where the SDK wanted to send parts; a version that is done takes
    no more."""
    files = told["files"]
    assert (files["same"], files["length"]) == (True, LARGE_BYTES)
    assert files["downloaded"] == "text"
    assert files["listed"] == [["/Volumes/ml/llm/raw/d/a b.txt", False], ["/Volumes/ml/llm/raw/d/e", True]]
    assert files["taken"][0] == "ResourceAlreadyExists"
    assert [files[name][0] for name in ("no_file", "no_folder")] == ["NotFound", "NotFound"]
    assert "VERSION_NOT_READY" in files["late"][1] or "takes no files any more" in files["late"][1]
    assert files["outside"][0] != "nothing"


def test_versions_and_aliases(told: Any) -> None:
    """A version that failed says so beside one whose files are to come; an alias moves; all goes in the end."""
    versions = told["versions"]
    assert versions["listed"] == [[1, "FAILED_REGISTRATION"], [2, "PENDING_REGISTRATION"]]
    assert versions["by_alias"] == 2
    assert versions["comment"] == "first"
    assert versions["aliases"] == [["default", 1], ["Champion", 2]]
    assert (versions["no_alias"][0], versions["gone"][0]) == ("ResourceDoesNotExist", "ResourceDoesNotExist")


def test_ways_in(told: Any) -> None:
    """As a service the same client is the same key; a wrong secret is told as OAuth tells it."""
    ways = told["ways_in"]
    assert ways["service"] == told["me"]
    assert ways["catalogs"] == ["system"] or "ml" in ways["catalogs"]
    assert "invalid_client" in ways["wrong"][1]
    assert ways["no_key"][0] == "Unauthenticated"
