"""Who changes the Open WebUI: an administrator, by password or API key.

Knows Open WebUI's sign-in (``routers/auths.py``); not what is done after it.
"""

import argparse
import getpass
import os
import sys

from infra.errors import CommandError
from infra.owui.webui import OpenWebUI, answer, detail

PASSWORD_VARIABLE = "OWUI_PASSWORD"
API_KEY_VARIABLE = "OWUI_API_KEY"


def configure(parser: argparse.ArgumentParser) -> None:
    """The words that say where Open WebUI is and who asks."""
    parser.add_argument("--url", required=True, help="where Open WebUI is, http://host:port")
    parser.add_argument("--email", help="an administrator of Open WebUI")
    parser.add_argument(
        "--password", help=f"better: the variable {PASSWORD_VARIABLE}, or typed when asked"
    )
    parser.add_argument(
        "--api-key", help=f"instead of email and password (also {API_KEY_VARIABLE})"
    )


def sign_in(webui: OpenWebUI, args: argparse.Namespace) -> None:
    """Become the administrator, and make sure to be one.

    Raises:
        CommandError: who asks is not known there, or may not.
    """
    api_key = args.api_key or os.environ.get(API_KEY_VARIABLE)
    open_to_all = webui.features.get("auth") is False  # WEBUI_AUTH=false: any body signs in
    if not (api_key or args.email or open_to_all):
        raise CommandError("name an administrator: --email (and a password), or --api-key")
    if api_key:
        webui.carry(api_key)
    elif open_to_all:
        webui.carry(token(webui, "", ""))
    else:
        webui.carry(token(webui, args.email, password(args)))
    reply = webui.call("GET", "/openai/config")
    if reply.status_code in (401, 403):
        raise CommandError(_refused(detail(reply), args.email, bool(api_key)))
    webui.look()  # an administrator sees more


def _refused(said: str, email: str | None, by_key: bool) -> str:
    if not by_key:
        return f"{email} is no administrator of this Open WebUI ({said})"
    return (
        f"the API key may not change this Open WebUI ({said}). It must be an administrator's, and"
        " Open WebUI must run with ENABLE_API_KEYS=true; or use --email"
    )


def password(args: argparse.Namespace) -> str:
    """From the command line, the environment, or the person at the keyboard."""
    known: str | None = args.password or os.environ.get(PASSWORD_VARIABLE)
    if known:
        return known
    if not sys.stdin.isatty():
        raise CommandError(f"give the password in {PASSWORD_VARIABLE} or with --password")
    try:
        return getpass.getpass(f"Open WebUI password of {args.email}: ")
    except EOFError as error:
        raise CommandError("no password was given") from error


def token(webui: OpenWebUI, email: str, secret: str) -> str:
    """What a browser would get for this email and password."""
    reply = webui.call("POST", "/api/v1/auths/signin", {"email": email, "password": secret})
    if reply.status_code == 400:
        raise CommandError(
            f"Open WebUI knows no {email} with this password ({detail(reply)}). An account of LDAP"
            " or single sign-on has none here: --api-key"
        )
    if reply.status_code == 429:
        raise CommandError(
            f"Open WebUI does not let you sign in now ({detail(reply)}): too many have tried. Wait"
            " three minutes"
        )
    if reply.status_code in (401, 403):
        raise CommandError(
            f"Open WebUI does not let you sign in with a password ({detail(reply)}); use --api-key"
        )
    facts = answer(reply, "Open WebUI does not let you sign in")
    if not facts.get("token"):  # a second factor is asked for
        raise CommandError("Open WebUI wants more than a password here; use --api-key")
    return str(facts["token"])
