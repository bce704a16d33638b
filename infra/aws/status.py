"""``vestibule aws status``: what a deployment is, whether it still is so, and if it answers."""

import argparse
import json
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import urlopen

from infra.aws import deployment
from infra.aws.deployment import Deployment
from infra.aws.program import Stopped

PACKAGE = ("package_hash", "runtime", "architecture")
ASKED = ("url", "functions_url")
ANSWER_S = 10.0  # the first call of a function may start it


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule aws status``."""
    parser.description = (
        "Show where a deployment is, what differs from what was deployed, and ask it whether it is"
        " ready. Changes nothing. Exit code 1 when something is not as it should be."
    )
    deployment.add_words(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when all is as deployed and answers, else 1.

    Raises:
        CommandError: something is missing or wrong, or Terraform failed.
    """
    try:
        return _status(Deployment(args))
    except Stopped as stopped:
        return stopped.code


def _status(ours: Deployment) -> int:
    ours.prepare()
    outputs = ours.outputs()
    if not outputs:
        print(f"{ours.name} is not deployed in {ours.region}")
        return 1
    differs = ours.plan({name: outputs[name] for name in PACKAGE}, save=False)
    width = max(map(len, outputs))
    for name, value in outputs.items():
        text = value if isinstance(value, str) else json.dumps(value)
        print(f"{name}:\n{text}" if "\n" in text else f"{name:<{width}}  {text}")
    print(f"drift: {'above is what a deploy would change' if differs else 'none'}")
    ready = [_ready(outputs[name]) for name in ASKED]
    return 0 if all(ready) and not differs else 1


def _ready(base: str) -> bool:
    url, good = f"{base}/readyz", False
    try:
        with urlopen(url, timeout=ANSWER_S) as answer:
            said, good = answer.read(1000).decode(errors="replace"), True  # else an HTTPError
    except HTTPError as error:
        said = f"{error.code} {error.read(1000).decode(errors='replace')}"
    except (OSError, HTTPException, ValueError) as error:
        said = str(error)
    print(f"{url}: {said}")
    return good
