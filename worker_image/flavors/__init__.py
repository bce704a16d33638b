"""What is known of a kind of machine: the image it starts from, and how vLLM runs well on it.

A flavor is one TOML file, in this folder or an operator's own; its name is the file's. Knows images
and vLLM's flags; not the model, not the agent's settings. `infra/image.py` makes commands of it.

Where the numbers of the files come from, all for a dense model of 8 billion weights in bfloat16
(16 GB) such as Qwen3-8B or Llama-3.1-8B; whoever serves another one counts again:

- A token of a conversation takes 32 layers x 8 heads x 128 values x key and value x 2 bytes =
  131 kB of the KV cache. The cache is the card's memory x 0.92 less the weights and about 3 GB of
  activations and CUDA graphs. ``max-num-seqs`` is that cache over conversations of 4,096 tokens.
- ``max-num-queued-reqs`` is twice ``max-num-seqs``: as many again may wait inside vLLM, so that no
  place stays empty, and whoever comes later waits in Vestibule's queue, where the place is shown.
- ``max-num-queued-tokens`` is what the card reads in 10 seconds, so that nobody waits longer than
  that for others' prompts: 40 % of its dense bfloat16 rate over 2 operations a weight. vLLM counts
  only prompts already in it, so one long prompt alone is never refused (0.32, `async_llm.py`).
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    StringConstraints,
    ValidationError,
    model_validator,
)

FOLDER = Path(__file__).parent

# As vLLM reads it: 1k is 1,000 and 1K is 1,024.
Size = PositiveInt | Annotated[str, StringConstraints(pattern=r"^[1-9]\d*(\.\d+)?[kKmMgG]$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")]


class FlavorError(Exception):
    """Everything that is wrong with a flavor, or that there is none of that name."""


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-")
    )


class Vllm(_Strict):
    """Arguments of ``vllm serve``; each field is the flag of its name.

    What the agent decides (host, port, key) has no place here.
    """

    max_num_seqs: PositiveInt
    """Requests it works on at once; the worker's slots."""
    max_num_queued_reqs: PositiveInt
    """Requests in it, running or waiting; one more gets 503."""
    max_num_queued_tokens: PositiveInt
    """Tokens of prompts it has not yet read; while there are so many, all requests get 503."""
    max_model_len: Literal["auto"] | Size = "auto"
    """`auto`: the model's own, or what fits in memory. More than the model's own is an error."""
    gpu_memory_utilization: float | None = Field(None, gt=0, lt=1)
    kv_cache_memory_bytes: Size | None = None
    tensor_parallel_size: PositiveInt | None = None
    dtype: Literal["auto", "bfloat16", "float16", "float32"] | None = None
    enforce_eager: bool | None = None
    enable_prefix_caching: bool = True
    enable_auto_tool_choice: bool = True
    """Open WebUI sends `tools` with every chat; vLLM answers 400 to that without this."""
    tool_call_parser: str = "hermes"
    """Qwen's and Hermes' way to write a call; each family has its own: `vllm serve --help=all`."""
    enable_request_id_headers: bool = True
    shutdown_timeout: PositiveInt = 10
    """Seconds for what still runs when the agent has waited long enough; vLLM 0.32's 0 cuts it."""

    def words(self) -> list[str]:
        """As a command line says them."""
        words = []
        for flag, value in self.model_dump(by_alias=True, exclude_none=True).items():
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                words += [f"--{flag}", str(value)]
        return words


class Flavor(_Strict):
    """One kind of machine."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    title: str = Field(min_length=1)
    image: str
    """What the worker's image starts from, by an exact tag or digest."""
    gpu: Literal["nvidia", "amd", "none"]
    docker: tuple[str, ...] = ()
    """Flags of ``docker run`` beside those that hand over the GPU."""
    environment: dict[Variable, str] = Field(default_factory=dict)
    vllm: Vllm

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse what changes by itself, and limits that contradict each other."""
        _, _, tag = self.image.rpartition("/")[2].partition(":")
        pinned = re.search(r"@sha256:[0-9a-f]{64}$", self.image)
        if not pinned and (not tag or tag.startswith(("latest", "nightly"))):
            raise ValueError("image must end in an exact tag or @sha256:...")
        if self.vllm.max_num_queued_reqs < self.vllm.max_num_seqs:
            raise ValueError(
                "vllm.max-num-queued-reqs is below vllm.max-num-seqs: slots stay empty"
            )
        return self


def names() -> list[str]:
    """The flavors that come with Vestibule."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(named: str) -> Flavor:
    """The flavor of that name, or of that file when it ends in ``.toml``. Raises `FlavorError`."""
    if named.endswith(".toml"):
        file = Path(named)
    elif named in names():
        file = FOLDER / f"{named}.toml"
    else:
        raise FlavorError(f"there is no flavor {named!r}: {', '.join(names())}, or a file *.toml")
    try:
        return Flavor(name=file.stem, **tomllib.loads(file.read_text()))
    except OSError as error:
        raise FlavorError(f"{file} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as error:
        raise FlavorError(f"{file} is no flavor: {error}") from error
    except ValidationError as error:
        lines = [_told(one["loc"], one["msg"]) for one in error.errors()]
        raise FlavorError("\n".join(f"{file}: {line}" for line in lines)) from error


def _told(place: Sequence[int | str], message: str) -> str:
    where = ".".join(map(str, place))
    return f"{where}: {message}" if where else message.removeprefix("Value error, ")
