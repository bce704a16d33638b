"""``vestibule owui install``: brings Function, valves and connections to what they should be.

Knows the order of the steps; not how each thing is read and written. First everything is read, then
one change after the other is made and printed; a dry run prints the same and makes none.
"""

import argparse
from collections.abc import Iterator, Mapping
from functools import cache

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
SEEN = "  note: users see its models once they are public: Admin Panel, Settings, Models"

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
    wanted = current.gated(target, installed.valves, merged)
    changes = [
        *_function(webui, installed, merged, kind, lost, verbose),
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


def _function(
    webui: OpenWebUI,
    installed: Installed,
    wanted: valves.Json,
    kind: type[BaseModel],
    lost: Lost,
    verbose: bool,
) -> Iterator[Change]:
    """Its text, and its valves."""
    text, stored = function.source(), installed.valves

    @cache  # both at once: switched on without its valves it would refuse every chat
    def make() -> None:
        # Open WebUI takes no text that its stored valves do not fit (400). Without a value the
        # old text has its default for a moment.
        if spoilt := bool(lost) and text != installed.text:
            installed.write_valves(webui, {k: v for k, v in stored.items() if k not in lost})
        try:
            installed.write_text(webui, text)
        except CommandError:
            if spoilt:
                installed.write_valves(webui, stored)
            raise
        if wanted != stored:
            installed.write_valves(webui, wanted)
        installed.switch_on(webui)

    notes = tuple(function.text_notes(installed.text, text, verbose)) if installed.exists else ()
    title = f"function {installed.function_id}"
    yield Change(title, installed.facts(), function.wanted(), make, notes)
    before = valves.facts(kind, stored) if stored else None
    gone = (f"warning: the valve {name} could not be kept: {why}" for name, why in lost.items())
    yield Change("valves", before, valves.facts(kind, wanted), make, tuple(gone))


def _connections(webui: OpenWebUI, current: Connections, wanted: Connections) -> Iterator[Change]:
    """One change for each of ours."""

    @cache  # all of them at once
    def make() -> None:
        webui.write("/openai/config/update", wanted.body(), "the connections are refused")

    if current.enabled != wanted.enabled:
        others = [one.url for one in current.all if one.enabled and not one.ours]
        notes = tuple(f"  warning: {url} is switched on by this as well" for url in others)
        yield Change("OpenAI API", {"enabled": False}, {"enabled": True}, make, notes)
    for place, one in wanted.ours:
        before: Facts | None = None
        after = one.facts()
        if place < len(current.all):
            stood = current.all[place]
            before = stood.facts()
            if stood.url != one.url:
                before, after = {"url": stood.url, **before}, {"url": one.url, **after}
        notes = () if before else (SEEN,)
        yield Change(TITLE.format(url=one.url), before, after, make, notes)


def _trials(
    webui: OpenWebUI, wanted: Connections, told: list[str], *, tried: bool
) -> Iterator[str]:
    """A line for each connection; its problems are added to ``told``. Only one that is there can
    be tried with a chat."""
    known = trial.sources(webui)
    for place, one in wanted.ours:
        if not one.enabled:
            yield f"models of {one.url}: switched off in Open WebUI"
            continue
        found = trial.models_of(webui, one)
        offered = found.models or ()
        yield f"models of {one.url}: {'see below' if found.problem else f'{len(offered)} offered'}"
        problems = [found.problem, trial.diverted(known, place, wanted.all, offered)]
        if tried and not found.problem:
            problems.append(trial.identity_of(webui, known, place, one.url).problem)
        told += [problem for problem in problems if problem]
