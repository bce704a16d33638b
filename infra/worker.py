"""``vestibule worker``: the agent, which runs vLLM, in the foreground, until it is stopped.

Knows how the agent is started, watched and stopped; not how it runs vLLM, nor what it and admission
say.
"""

import argparse
import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from yarl import URL

from admission.settings import Settings, SettingsError
from infra import environment
from infra.addresses import callable_url, check_free
from infra.errors import CommandError
from infra.state import kept_key
from infra.stopping import stop_event
from worker_image import agent

LOOK_S = 0.3  # how often the agent is asked how far it is
STILL_STARTING_S = 30.0  # a large model loads for minutes: say now and then that it goes on
# On top of the time the agent gives the running requests: it tells admission and ends vLLM.
AGENT_STOP_S = 5.0 + agent.ENGINE_DRAIN_S + agent.ENGINE_STOP_S
TAIL_LINES = 12


def agent_command(*, port: int) -> list[str]:
    """The command line of an agent; what else it needs is in `agent_environment`."""
    return [sys.executable, str(Path(agent.__file__)), "--port", str(port)]


def agent_environment(
    *,
    admission_url: str,
    worker_token: str,
    worker_id: str,
    state_file: Path,
    vllm_url: str,
    slots: int = 8,
    drain_timeout_s: int = 5,
) -> dict[str, str]:
    """What an agent finds in its environment, to be added to the one of the machine."""
    return {
        "VESTIBULE_ADMISSION_URL": admission_url,
        "VESTIBULE_WORKER_TOKEN": worker_token,
        "VESTIBULE_WORKER_ID": worker_id,
        "VESTIBULE_WORKER_STATE": str(state_file),
        "VESTIBULE_WORKER_DRAIN_TIMEOUT": str(drain_timeout_s),
        "VESTIBULE_VLLM_URL": vllm_url,
        "VESTIBULE_SLOTS": str(slots),
    }


def demo_command(*, port: int) -> list[str]:
    """The command line of the demo model server."""
    return [sys.executable, "-m", "infra.demo_model", "--port", str(port)]


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule worker``."""
    parser.description = (
        "Start the worker agent, which starts `vllm serve` on a free loopback port, in the"
        " foreground. The agent's settings may also come from the environment: see"
        " `python -m worker_image.agent --help`."
    )
    parser.epilog = (
        "Words after `--` go to `vllm serve`: vestibule worker --model DIR -- --dtype auto"
    )
    parser.add_argument(
        "--model", help="folder, hub's name or addresses of the model to serve (VESTIBULE_MODEL)"
    )
    parser.add_argument("--served-model-name", help="the name users see (the model's own)")
    parser.add_argument("--admission-url", help="the admission service (http://127.0.0.1:8600)")
    parser.add_argument(
        "--worker-token-file",
        type=Path,
        help="file with the worker token (VESTIBULE_WORKER_TOKEN, or the state folder's keys.json)",
    )
    parser.add_argument("--host", help="address the agent listens on (127.0.0.1)")
    parser.add_argument("--port", help="port the agent listens on (9001)")
    parser.add_argument("--slots", help="concurrent requests the model takes well (8)")
    parser.add_argument("--pool", help="the pool this worker serves (default)")
    parser.add_argument("--vllm", default="vllm", help="the vllm executable (`vllm` on the PATH)")
    parser.add_argument("vllm_arguments", nargs="*", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM: 0."""
    asyncio.run(Running(make_plan(args)).run())
    return 0


@dataclass(frozen=True)
class Plan:
    """Everything that is known before anything is started."""

    settings: agent.Settings
    agent: Sequence[str]
    agent_environment: Mapping[str, str]

    @property
    def log_file(self) -> Path:
        """Where the agent writes, vLLM's lines among its own."""
        return self.settings.state_file.with_suffix(".log")


def make_plan(args: argparse.Namespace) -> Plan:
    """Decide and check. Raises `CommandError` and `SettingsError`."""
    ours, environ = environment.settings(), os.environ
    named = ["--served-model-name", args.served_model_name] if args.served_model_name else []
    if not (model := args.model or environ.get("VESTIBULE_MODEL")):
        raise CommandError("which model? --model, or VESTIBULE_MODEL for an address with a secret")
    theirs = {
        **environ,
        "VESTIBULE_MODEL": model,
        "VESTIBULE_VLLM": str(_executable(args.vllm)),
        "VESTIBULE_WORKER_TOKEN": _worker_token(args.worker_token_file, ours),
    }
    if words := [*args.vllm_arguments, *named]:
        theirs["VESTIBULE_VLLM_ARGUMENTS"] = shlex.join(words)
    flags = []
    for name in ("admission_url", "host", "port", "slots", "pool"):
        if (value := getattr(args, name)) is not None:
            flags += [f"--{name.replace('_', '-')}", value]
    try:
        settings = agent.read_settings(flags, theirs)
    except agent.SettingsError as error:
        raise SettingsError(str(error)) from error
    _check_model(model)
    check_free(settings.host, settings.port)
    _make_folder(settings.state_file.parent)
    return Plan(
        settings=settings,
        agent=[sys.executable, str(Path(agent.__file__)), *flags],
        agent_environment={**theirs, "VESTIBULE_WORKER_ID": settings.worker_id},
    )


def _worker_token(file: Path | None, ours: Settings) -> str:
    if file is None:
        return kept_key(ours, "worker_token") or ""
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--worker-token-file {file} cannot be read: {error}") from error


def _executable(name: str) -> Path:
    if found := shutil.which(name):
        return Path(found).absolute()
    raise CommandError(
        f"there is no executable {name!r}: install vLLM (https://docs.vllm.ai), or name it"
        " with --vllm"
    )


def _check_model(model: str) -> None:
    """A name is vLLM's to find; a path must be there."""
    if model.startswith(("/", ".", "~")) and not Path(model).is_dir():
        raise CommandError(f"--model {model}: there is no such folder")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"the state folder {folder} cannot be made: {error.strerror}") from error


class Child:
    """One process in a session of its own, so that a Ctrl-C reaches only us."""

    def __init__(self, title: str, log_file: Path) -> None:
        self._title, self.log_file = title, log_file
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        with self.log_file.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def ended(self) -> None:
        """Wait for its end."""
        assert self._process
        await self._process.wait()

    def obituary(self) -> str:
        """How it ended, in words."""
        status = (self._process and self._process.returncode) or 0
        how = f"ended with status {status}" if status >= 0 else f"was ended by signal {-status}"
        return f"{self._title} {how}"

    async def stop(self, grace_s: float) -> None:
        """End it and whatever it started: politely, and after `grace_s` not politely."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._process.wait()
        with contextlib.suppress(ProcessLookupError):  # vLLM's engine is a process of its own
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    def last_lines(self) -> list[str]:
        return self.log_file.read_text(errors="replace").splitlines()[-TAIL_LINES:]


class Running:
    """The agent at work, and what is told of it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._agent = Child("the agent", plan.log_file)

    async def run(self) -> None:
        """Until it is stopped. Raises `CommandError` when the agent dies, or vLLM does not start.

        A vLLM that has served and then crashes is started again by the agent.
        """
        stop, death = stop_event(), ""
        try:
            await self._agent.start(self._plan.agent, self._plan.agent_environment)
            model = agent.Journal().clean(self._plan.settings.model)  # maybe a presigned address
            _say(f"vLLM starts with {model} (log: {self._plan.log_file})")
            death = await self._watch(stop)
        finally:
            _say("stopping")
            await self._agent.stop(self._plan.settings.drain_timeout_s + AGENT_STOP_S)
        if death:
            raise CommandError(f"{death} (log: {self._plan.log_file})")

    async def _watch(self, stop: asyncio.Event) -> str:
        """Wait for the end: why it ended, or "" when we were asked to stop."""
        waiting = (stop.wait(), Progress(self._plan.settings).tell(), self._agent.ended())
        tasks = [asyncio.create_task(one) for one in waiting]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done - {tasks[0]}:
            task.result()
        if stop.is_set():
            return ""
        return self._agent_death() if tasks[2] in done else self._vllm_death(tasks[1].result())

    def _agent_death(self) -> str:
        said = [line for line in self._agent.last_lines() if line.startswith("agent: ")]
        return said[-1].removeprefix("agent: ") if said else self._agent.obituary()

    def _vllm_death(self, reason: object) -> str:
        for line in self._agent.last_lines():
            if found := re.match(r"\S+ \S+ [A-Z]+ vllm (.*)", line):
                print(f"  | {found[1]}", file=sys.stderr)
        return str(reason)


class Progress:
    """Tells how far the agent is, a line for each thing that changed."""

    def __init__(self, settings: agent.Settings) -> None:
        self._settings = settings
        self._began = time.monotonic()
        self._said: dict[str, str] = {}

    async def tell(self) -> str:
        """Ends when vLLM has ended before it ever served: with the reason."""
        base = URL(callable_url(self._settings.host, self._settings.port))
        base = base.with_scheme("https") if self._settings.with_tls else base
        timeout = aiohttp.ClientTimeout(total=5)
        # Its certificate is its own, and the way to it does not leave this machine.
        connector = aiohttp.TCPConnector(ssl=False)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(base / "info") as answer:
                        state = (await answer.json())["vllm_state"]
                    async with session.get(base / "readyz") as answer:
                        seen = await answer.json()
                    self._compare(seen)
                    if state == "crashed" and "models" not in self._said:
                        return str(seen["reason"]).partition("; next start")[0]
                await asyncio.sleep(LOOK_S)

    def _compare(self, seen: Mapping[str, object]) -> None:
        models, ready = seen["models"], seen["ready"]
        settings = self._settings
        self._say("admission", f"admission: {seen['admission']} ({settings.admission_url})")
        if isinstance(models, list) and models:
            self._say("models", f"model loaded: {', '.join(map(str, models))}")
        if ready and seen["registered"]:
            served = f"pool {settings.pool}, {settings.slots} slots, {settings.worker_url}"
            self._say("state", f"ready: {served}")
        elif "models" in self._said:
            self._say("state", f"not ready: {seen['reason'] or 'not registered'}")
        else:
            if "fetched" in str(seen["reason"]):
                self._say("fetched", str(seen["reason"]))
            waited = int((time.monotonic() - self._began) / STILL_STARTING_S) * STILL_STARTING_S
            self._say("waited", f"vLLM is still starting ({waited:.0f} s)" if waited else "")

    def _say(self, topic: str, text: str) -> None:
        if text and self._said.get(topic) != text:
            self._said[topic] = text
            _say(text)


def _say(text: str) -> None:
    print(f"vestibule worker: {text}", flush=True)
