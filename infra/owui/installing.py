"""``vestibule owui install``: brings Function, valves and connections to what they should be.

Knows the order of the steps; not how each thing is read and written. First everything is read, then
one change after the other is made and printed; a dry run prints the same and makes none.
"""

import argparse
from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from infra import environment
from infra.errors import CommandError
from infra.owui import function, surroundings, trial, valves, variables
from infra.owui.change import Change, Facts
from infra.owui.connections import Connections
from infra.owui.function import Installed
from infra.owui.signin import sign_in
from infra.owui.target import Target, address
from infra.owui.webui import OpenWebUI

TITLE = "connection {url}"

Lost = Mapping[str, str]
"""Valves that cannot be kept, each with the reason."""


def run(args: argparse.Namespace) -> int:
    """Install, each change as it is made: 0."""
    target = Target.of(args, environment.settings())
    with OpenWebUI(address(args.url, "--url")) as webui:
        webui.find()
        sign_in(webui, args)
        for line in install(webui, target, dry_run=args.dry_run, verbose=args.verbose):
            print(line, flush=True)
    if target.jwt:
        print("\nOpen WebUI must run with these variables, or nobody's chats pass the gateway")
        print(f"(for {args.form}; other forms with --for):")
        for line in variables.lines(variables.JWT, args.form):
            print(line)
    else:
        print("Open WebUI's environment needs nothing for this. For replicas: vestibule owui env")
    return 0


def install(webui: OpenWebUI, target: Target, *, dry_run: bool, verbose: bool) -> Iterator[str]:
    """Make each change; the lines to print.

    Raises:
        CommandError: Open WebUI refuses one; those before it are made.
    """
    surroundings.check_functions(webui)
    installed = Installed.read(webui, target.function_id)
    current = Connections.of(webui.read("/openai/config"))
    kind = function.valves_of(function.source())
    lost = valves.unfit(kind, installed.valves)
    merged = valves.merged({k: v for k, v in installed.valves.items() if k not in lost}, target)
    known_key = installed.valves.get("service_key")
    wanted = current.gated(target, known_key, merged["service_key"])
    changes = [
        _function(webui, installed, lost, verbose),
        _valves(webui, installed, merged, kind, lost),
        *_connections(webui, current, wanted),
    ]
    for change in changes:
        if change.word != "unchanged" and not dry_run:
            change.make()
        yield from change.lines()
    url, key = merged["admission_url"], merged["service_key"]
    told: list[str] = []
    yield from _trials(webui, wanted, told, tried=not dry_run)
    problem = trial.admission(webui, url, key).problem
    if problem:
        told.append(problem)
        yield f"admission {url}: see below; from here: {trial.from_here(url)}"
    else:
        yield f"admission {url}: answers"
    told += surroundings.warnings(webui, installed, url)
    yield from (f"warning: {text}" for text in dict.fromkeys(told))
    if dry_run:
        yield "Dry run: nothing was written."


def _function(webui: OpenWebUI, installed: Installed, lost: Lost, verbose: bool) -> Change:
    text, stored = function.source(), installed.valves

    def make() -> None:
        # Open WebUI takes no text that its stored valves do not fit (400). Without a value the
        # old text has its default for a moment.
        if lost and text != installed.text:
            installed.write_valves(webui, {k: v for k, v in stored.items() if k not in lost})
        try:
            installed.put(webui, text)
        except CommandError:
            if lost and text != installed.text:
                installed.write_valves(webui, stored)
            raise

    return Change(
        f"function {installed.function_id}",
        installed.facts(),
        function.wanted(),
        make,
        tuple(function.text_notes(installed.text, text, verbose)) if installed.exists else (),
    )


def _valves(
    webui: OpenWebUI, installed: Installed, wanted: valves.Json, kind: type[BaseModel], lost: Lost
) -> Change:
    return Change(
        "valves",
        valves.facts(kind, installed.valves) if installed.valves else None,
        valves.facts(kind, wanted),
        lambda: installed.write_valves(webui, wanted),
        tuple(f"warning: the valve {name} could not be kept: {why}" for name, why in lost.items()),
    )


def _connections(webui: OpenWebUI, current: Connections, wanted: Connections) -> Iterator[Change]:
    """One change for each of ours; the first that is made writes them all."""
    written: list[bool] = []

    def make() -> None:
        if not written:
            webui.write("/openai/config/update", wanted.body(), "the connections are refused")
            written.append(True)

    if current.enabled != wanted.enabled:
        others = [one.url for one in current.all if one.enabled and not one.ours]
        notes = tuple(f"  warning: {url} is switched on by this as well" for url in others)
        yield Change("OpenAI API", {"enabled": False}, {"enabled": True}, make, notes)
    for place, one in wanted.ours:
        before: Facts | None = None
        if place < len(current.all):
            before = current.all[place].facts()
        yield Change(TITLE.format(url=one.url), before, one.facts(), make)


def _trials(
    webui: OpenWebUI, wanted: Connections, told: list[str], *, tried: bool
) -> Iterator[str]:
    """A line for each connection; its problems are added to ``told``. Only one that is there can
    be tried with a chat."""
    for place, one in wanted.ours:
        if not one.enabled:
            yield f"models of {one.url}: switched off in Open WebUI"
            continue
        found = trial.models_of(webui, one)
        yield f"models of {one.url}: {'see below' if found.problem else f'{found.models} offered'}"
        problem = found.problem
        if tried and not problem:
            problem = trial.identity_of(webui, place, one.url).problem
        if problem:
            told.append(problem)
