"""Whatever is sent to the running service: no 5xx, and only documented answers.

What takes long runs with the contract (`make contract`).
"""

import asyncio

import pytest

from admission.accounting.ledger import Ledger
from admission.accounting.record import Record
from admission.openapi import document
from tests.conftest import Service
from tests.frontends.conftest import Model
from tests.frontends.fuzz import fuzz

DOCUMENT = document("1")
EXAMPLES = 5  # of each operation


@pytest.mark.soak
async def test_whatever_is_sent_gets_a_documented_answer(service: Service, model: Model) -> None:
    await service.capacity(100_000)
    Ledger(service.settings.ledger_url()).add([Record(id="1", model="tiny")])
    await asyncio.to_thread(fuzz, service.url, service.admin_key, DOCUMENT, EXAMPLES)


async def test_what_needs_a_key_is_refused_without_one(service: Service) -> None:
    values = {"user_id": "ada", "name": "page.css", "of": "user"}
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            filled = path
            for parameter in operation["parameters"]:
                if parameter["in"] == "path":
                    name = parameter["name"]
                    filled = filled.replace(f"{{{name}}}", values.get(name, "default"))
            async with service.http.request(method.upper(), filled) as response:
                assert (response.status == 401) == bool(operation["security"]), (method, path)
