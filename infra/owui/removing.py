"""``vestibule owui uninstall``: takes the Function and our connections out again.

Knows what is ours; everything else in Open WebUI stays exactly as it is.
"""

import argparse
from collections.abc import Iterator
from functools import cache

from infra import consent
from infra.owui.change import Change
from infra.owui.connections import Connections, base
from infra.owui.function import Installed
from infra.owui.installing import TITLE
from infra.owui.signin import sign_in
from infra.owui.target import address
from infra.owui.webui import OpenWebUI


def run(args: argparse.Namespace) -> int:
    """Uninstall, after a question on a terminal: 0, or 1 when the answer was no.

    Raises:
        CommandError: there is nobody to ask.
    """
    named = [address(url, "--gateway-url") for url in args.gateway_url or ()]
    with OpenWebUI(address(args.url, "--url")) as webui:
        webui.find()
        sign_in(webui, args)
        changes = list(removal(webui, args.function_id, named, args.function_only))
        if not changes:
            print("nothing to remove")
            return 0
        for change in changes:
            for line in change.lines():
                print(line)
        if args.dry_run:
            print("Dry run: nothing was removed.")
            return 0
        if not consent.given(args, "Remove all this from Open WebUI"):
            return 1
        for change in changes:
            change.make()
    print("Removed. What users set for themselves, and chats, stay.")
    return 0


def removal(
    webui: OpenWebUI, function_id: str, gateways: list[str], function_only: bool
) -> Iterator[Change]:
    """What is there of ours, each as a change to nothing. With ``gateways`` only their
    connections."""
    installed = Installed.read(webui, function_id)
    if installed.exists and not gateways:
        yield Change(
            f"function {function_id}, with its valves",
            installed.facts(),
            None,
            lambda: installed.delete(webui),
        )
    current = Connections.of(webui.read("/openai/config"))
    gone = {place: one for place, one in current.ours if not gateways or base(one.url) in gateways}
    if function_only or not gone:
        return
    left = current.without(gone)

    @cache  # all of them at once
    def make() -> None:
        webui.write("/openai/config/update", left.body(), "the connections stay")

    for one in gone.values():
        yield Change(TITLE.format(url=one.url), one.facts(), None, make)
    if left.enabled != current.enabled:
        yield Change("OpenAI API", {"enabled": True}, {"enabled": False}, make)
