"""A function imports only what it runs: a package without the rest is enough."""

import json
import subprocess
import sys

import pytest

from tests.functions.conftest import event
from tests.infra.conftest import ROOT, clean_environment

NOT_NEEDED = ("sqlalchemy", "jinja2", "httptools", "uvloop", "apscheduler", "infra", "worker_image")
LISTED = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def imported(code: str, **environment: str) -> set[str]:
    """The modules there are after ``code`` ran in a fresh process."""
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}\n{LISTED}"],
        cwd=ROOT,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(ended.stdout.splitlines()[-1])
    return set(found)


def unwanted(modules: set[str], *more: str) -> list[str]:
    return [
        name
        for name in sorted(modules)
        if name.split(".")[0] in (*NOT_NEEDED, *more)
        or name.startswith(("admission.gateway", "admission.pages", "admission.news"))
    ]


def test_the_functions_import_neither_gateway_nor_sql_nor_scheduler() -> None:
    assert not unwanted(imported("import admission.functions"), "scheduler")


def test_nor_do_they_at_their_first_invocation(empty: str) -> None:
    invoked = event("POST", "/queue/join/ada", {})
    modules = imported(
        f"from admission.functions import handler\n"
        f"assert handler({invoked!r}, None)['statusCode'] == 200",
        REDIS_URL=empty,
        VESTIBULE_SERVICE_KEY="service-key",
    )
    assert not unwanted(modules, "scheduler")


def test_the_schedules_function_imports_neither(empty: str) -> None:
    code = "from scheduler.functions import handler\nassert handler({}, None)['done']"
    assert not unwanted(imported(code, REDIS_URL=empty))


@pytest.mark.parametrize("library", ["sqlalchemy", "jinja2", "httptools", "uvloop"])
def test_a_package_without_it_answers_and_describes_itself(empty: str, library: str) -> None:
    invoked = [event("POST", "/queue/join/ada", {}), event("GET", "/openapi.json")]
    imported(
        f"import sys\nsys.modules[{library!r}] = None\n"
        f"from admission.functions import handler\n"
        f"assert [handler(e, None)['statusCode'] for e in {invoked!r}] == [200, 200]",
        REDIS_URL=empty,
        VESTIBULE_SERVICE_KEY="service-key",
    )
