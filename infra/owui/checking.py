"""``vestibule owui status``: what is installed, whether it works, and what to do where not.

Knows what an install leaves behind; changes nothing.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from infra.owui import function, surroundings, trial, valves
from infra.owui.change import shown
from infra.owui.connections import HEADERS, USER, USER_HEADER, Connections
from infra.owui.function import SWITCHES, Installed
from infra.owui.signin import sign_in
from infra.owui.target import address
from infra.owui.webui import OpenWebUI

AGAIN = "run `vestibule owui install`"

Json = dict[str, Any]


def run(args: argparse.Namespace) -> int:
    """Print it: 0 when all is well, 1 when something is missing."""
    with OpenWebUI(address(args.url, "--url")) as webui:
        webui.find()
        sign_in(webui, args)
        report = look(webui, args.function_id)
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        for line in told(report):
            print(line)
    return 0 if report["ok"] else 1


def look(webui: OpenWebUI, function_id: str) -> Json:
    """Everything ``status`` tells; ``problems`` make it not ok, ``warnings`` do not. Holds no key.

    Shape: open_webui {url, version} · function {id, installed, version, this_version,
    up_to_date, active, global} · valves {name: value, those changed from their defaults} ·
    connections [{url, enabled, users_named_by, models, problems}] · admission {url, from_here,
    problem} · problems · warnings · ok.
    """
    installed = Installed.read(webui, function_id)
    url = str(installed.valves.get("admission_url") or "")
    connections = _connections(webui)
    admission: Json | None = None
    if url:
        key = str(installed.valves.get("service_key") or "")
        problem = trial.admission(webui, url, key).problem
        admission = {"url": url, "from_here": trial.from_here(url), "problem": problem}
    report: Json = {
        "open_webui": {"url": webui.url, "version": webui.version},
        "function": _function(installed),
        "valves": _valves(installed),
        "connections": connections,
        "admission": admission,
    }
    problems = list(dict.fromkeys(_problems(webui, report)))
    warned = list(surroundings.warnings(webui, installed, url)) if installed.exists else []
    return {**report, "problems": problems, "warnings": warned, "ok": not problems}


def _function(installed: Installed) -> Json:
    text = function.source()
    return {
        "id": installed.function_id,
        "installed": installed.exists,
        "version": function.version(installed.text) if installed.exists else None,
        "this_version": function.version(text),
        "up_to_date": installed.text == text,
        **{name: installed.stands(name) for name in SWITCHES},
    }


def _valves(installed: Installed) -> Json:
    kind = function.valves_of(function.source())
    facts = valves.facts(kind, valves.changed(kind, installed.valves))
    return {
        name: shown(value) if isinstance(value, str) else value for name, value in facts.items()
    }


def _connections(webui: OpenWebUI) -> list[Json]:
    every = Connections.of(webui.read("/openai/config"))
    known = trial.sources(webui)
    return [_connection(webui, known, every, place) for place, _ in every.ours]


def _connection(
    webui: OpenWebUI, known: Mapping[str, Json], every: Connections, place: int
) -> Json:
    one = every.all[place]
    found = trial.models_of(webui, one) if one.enabled else trial.Trial()
    problems = [found.problem, trial.header_problem(one, HEADERS)]
    if one.enabled and not found.problem:
        problems.append(trial.diverted(known, place, every.all, found.models or ()))
        problems.append(trial.identity_of(webui, known, place, one.url).problem)
    plain = one.headers.get(USER_HEADER) == USER
    return {
        "url": one.url,
        "enabled": one.enabled,
        "users_named_by": USER_HEADER if plain else "signed JWT",
        "models": None if found.models is None else len(found.models),
        "problems": [text for text in problems if text],
    }


def _problems(webui: OpenWebUI, report: Json) -> Iterator[str]:
    """One sentence each, with what to do."""
    if webui.features.get("enable_functions") is False:
        yield "Open WebUI runs no Functions: take ENABLE_FUNCTIONS / ENABLE_PLUGINS=false out"
    found = report["function"]
    if not found["installed"]:
        yield f"the Function is not installed: {AGAIN}"
    else:
        if not found["up_to_date"]:
            yield f"the Function there has {_other_text(found)}: {AGAIN}"
        for switch in SWITCHES:
            if not found[switch]:
                yield f"the Function is not {switch}: {AGAIN}"
        if not report["admission"]:
            yield f"the Function does not know where admission is: {AGAIN}"
    connections = report["connections"]
    if not any(one["enabled"] for one in connections):
        yield f"no connection to the gateway is switched on: {AGAIN}"
    for one in connections:
        yield from one["problems"]
    if report["admission"] and report["admission"]["problem"]:
        yield report["admission"]["problem"]


def _other_text(found: Json) -> str:
    same = found["version"] == found["this_version"]
    return f"another {'text' if same else 'version'} than this Vestibule's {found['this_version']}"


def _counted(models: int | None) -> str:
    return "1 model" if models == 1 else f"{models or 0} models"


def told(report: Json) -> Iterator[str]:
    """The report for people."""
    webui, found = report["open_webui"], report["function"]
    yield f"Open WebUI {webui['version']} at {webui['url']}"
    if found["installed"]:
        switches = ", ".join(name if found[name] else f"not {name}" for name in SWITCHES)
        same = "as this one" if found["up_to_date"] else _other_text(found)
        yield f"function {found['id']}: {found['version']} ({same}), {switches}"
    else:
        yield f"function {found['id']}: not installed"
    for name, value in report["valves"].items():
        yield f"  {name} = {shown(value)}"
    for one in report["connections"]:
        models = "switched off" if not one["enabled"] else _counted(one["models"])
        yield f"connection {one['url']}: {models}, users named by {one['users_named_by']}"
    if (admission := report["admission"]) is not None:
        there = "does not get on with it" if admission["problem"] else "reaches it, key accepted"
        yield f"admission {admission['url']}: Open WebUI's server {there}"
        yield f"  from here: {admission['from_here']}"
    yield from (f"warning: {text}" for text in report["warnings"])
    yield from (f"problem: {text}" for text in report["problems"])
    yield "All is well." if report["ok"] else "Something is missing."
