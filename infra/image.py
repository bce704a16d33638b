"""``vestibule image``: the commands that build and run a worker's image, by flavor.

Knows Docker's words. Runs nothing: what it prints is the operator's to read, change and start.
"""

import argparse
import hashlib
import shlex
from pathlib import Path

import worker_image
from infra.errors import CommandError
from worker_image import flavors
from worker_image.flavors import Flavor

FOLDER = Path(worker_image.__file__).parent
PORT = 9001
DRAIN_S = 120  # as long as an answer may go on when its turn is over (DESIGN section 4)
MARGIN_S = 30  # the agent kills a vLLM that hangs 10 s later; then its own end
OPERATORS = ("ADMISSION_URL", "WORKER_TOKEN", "WORKER_URL", "WORKER_ID", "POOL")
"""Settings taken from the operator's shell, by name only: no secret stands in a command line."""

GPU = {
    "nvidia": ["--gpus=all"],
    # The user in the container must be of the group that owns the device, whose number differs.
    "amd": ["--device=/dev/kfd", "--device=/dev/dri", '--group-add="$(stat -c %g /dev/kfd)"'],
    "none": [],
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule image``."""
    parser.description = (
        "Print the command that builds the worker's image for a kind of machine (a flavor), or with"
        " --run the command that runs it. Without a flavor: list them."
    )
    parser.epilog = (
        "What is written behind the printed words wins: other arguments of `vllm serve` go there."
    )
    parser.add_argument("flavor", nargs="?", help="its name, or a file *.toml of your own")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--run", metavar="MODEL", dest="model", help="print how it is run")
    what.add_argument("--vllm", action="store_true", help="print vLLM's arguments alone")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print, and say 0. Raises `CommandError` for a flavor that is none."""
    if not args.flavor:
        if args.vllm or args.model:
            raise CommandError(f"which flavor? {', '.join(flavors.names())}, or a file *.toml")
        for name in flavors.names():
            print(f"{name:<8} {flavors.load(name).title}")
        return 0
    try:
        flavor = flavors.load(args.flavor)
    except flavors.FlavorError as error:
        raise CommandError(str(error)) from error
    if args.vllm:
        print(shlex.join(flavor.vllm.words()))
    else:
        print(
            " \\\n  ".join(run_command(flavor, args.model) if args.model else build_command(flavor))
        )
    return 0


def build_command(flavor: Flavor) -> list[str]:
    """``docker build``, a part a line, ready for a shell."""
    words = ["docker build", f"--build-arg=IMAGE={flavor.image}", f"--tag={_tag(flavor)}"]
    return [words[0], *map(shlex.quote, [*words[1:], str(FOLDER)])]


def run_command(flavor: Flavor, model: str) -> list[str]:
    """``docker run``, a part a line, ready for a shell.

    It names the checksum of the agent as it lies here: an image with another one stays unready.
    """
    settings = {
        "VESTIBULE_SLOTS": str(flavor.vllm.max_num_seqs),
        "VESTIBULE_WORKER_DRAIN_TIMEOUT": str(DRAIN_S),
        "WORKER_AGENT_SHA256": hashlib.sha256((FOLDER / "agent.py").read_bytes()).hexdigest(),
        **flavor.environment,
    }
    stop_s = DRAIN_S + flavor.vllm.shutdown_timeout + MARGIN_S
    return [
        "docker run --detach --name=vestibule-worker --restart=unless-stopped",
        f"--stop-timeout={stop_s} --publish={PORT}:{PORT} --volume=vestibule-worker:/state",
        " ".join([*GPU[flavor.gpu], *map(shlex.quote, flavor.docker)]),
        " ".join(f"--env=VESTIBULE_{name}" for name in OPERATORS) + " --env=HF_TOKEN",
        *(f"--env={shlex.quote(f'{name}={value}')}" for name, value in settings.items()),
        shlex.join([_tag(flavor), model]),
        shlex.join(flavor.vllm.words()),
    ]


def _tag(flavor: Flavor) -> str:
    return f"vestibule-worker:{flavor.name}"
