"""A desk at which no package is built."""

from pathlib import Path
from typing import Any

import pytest

from infra.aws import package
from infra.aws.package import Package
from tests.aws.desk import Desk


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    def build(output: Path, *_: Any, **__: Any) -> Package:
        output.write_bytes(b"zip")
        return Package(output, "00", "AAA=", 3, 3)

    monkeypatch.setattr(package, "build", build)
    made = Desk(tmp_path, monkeypatch)
    made.type(None)
    return made
