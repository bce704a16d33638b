"""The words of ``vestibule owui``."""

import argparse
import json

from infra import consent
from infra.owui import checking, installing, removing, signin, variables
from owui_pipeline import assemble, languages

GATEWAY = "as Open WebUI's server reaches it (http://127.0.0.1:8600)"


def configure(owui: argparse.ArgumentParser) -> None:
    """One action each."""
    actions = owui.add_subparsers(title="actions", metavar="ACTION", required=True)
    _install(
        actions.add_parser(
            "install",
            help="add or update the filter Function and the gateway's connections",
            description="Add or update the filter Function, its valves and the connections to the"
            " gateway, over Open WebUI's admin API, and print what is changed. May be run again"
            " at any time.",
        )
    )
    status = actions.add_parser("status", help="what is installed, and whether it works")
    _common(status)
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(run=checking.run)
    _uninstall(actions.add_parser("uninstall", help="take the Function and our connections out"))
    variables.configure(actions.add_parser("env", help="what Open WebUI's environment needs"))
    file = actions.add_parser("file", help="print the Function, to be pasted by hand")
    file.add_argument(
        "--for",
        dest="form",
        choices=list(TEXTS),
        default="function",
        help="function: Open WebUI; pipelines: the Pipelines server; texts: what users read, as the"
        " valve texts takes it",
    )
    file.set_defaults(run=print_file)


def _common(parser: argparse.ArgumentParser) -> None:
    signin.configure(parser)
    parser.add_argument(
        "--function-id", type=function_id, default="vestibule", help="its id in Open WebUI"
    )


def function_id(text: str) -> str:
    """As Open WebUI takes it, and stores it: in small letters.

    Raises:
        ArgumentTypeError: not a name.
    """
    if not text.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not letters, digits and underscores only")
    return text.lower()


def _install(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument("--admission-url", help=f"Vestibule, {GATEWAY}")
    parser.add_argument(
        "--gateway-url",
        action="append",
        help="the same for models, when it runs apart; may be given several times",
    )
    parser.add_argument(
        "--service-key",
        action="append",
        help="the service_key of keys.json in the state folder; one, or one for each --gateway-url",
    )
    parser.add_argument(
        "--prefix-id",
        action="append",
        help="put before the models' names there, where names clash; one for each --gateway-url",
    )
    parser.add_argument(
        "--jwt",
        action=argparse.BooleanOptionalAction,
        help="users are named by Open WebUI's signed JWT; default: when VESTIBULE_OWUI_JWT_SECRET"
        " is set",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the changes, make none")
    parser.add_argument("--verbose", action="store_true", help="the Function's source line by line")
    parser.add_argument("--for", dest="form", choices=list(variables.FORMS), default="docker",
                        help="how Open WebUI runs, for the variables it needs")  # fmt: skip
    parser.set_defaults(run=installing.run)


def _uninstall(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument(
        "--gateway-url", action="append", help="remove this connection only; may be repeated"
    )
    parser.add_argument("--function-only", action="store_true", help="leave the connections")
    parser.add_argument("--dry-run", action="store_true", help="print what would go")
    consent.add_words(parser)
    parser.set_defaults(run=removing.run)


def texts() -> str:
    """All that users read, by language, as the valve ``texts`` takes it."""
    return json.dumps(languages.TABLES, indent=2, ensure_ascii=False) + "\n"


TEXTS = {"function": assemble.function, "pipelines": assemble.pipeline, "texts": texts}
"""What it is for -> what makes it."""


def print_file(args: argparse.Namespace) -> int:
    """The whole text: 0."""
    print(TEXTS[args.form](), end="")
    return 0
