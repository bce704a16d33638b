"""What an operator chooses of the hosts that are reached over SSH."""

from msgspec import Struct

from infra.providers import fields


class Host(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table ``[[providers.NAME.hosts]]``: one machine with sshd."""

    name: str
    address: str  # where its sshd is
    port: int = 22
    user: str = ""  # "": the one of the settings
    host_key: str = ""  # SHA256:… of its key; "": what known_hosts says
    folder: str = ""  # where all is put, a path there; "": the one of the settings
    worker_address: str = ""  # how gateways reach its agent; "": address
    worker_port: int = 9001
    type: str = "host"
    zone: str = ""
    slots: int = 0  # requests that it runs well at once; 0: what the flavor says
    flavor: str = ""  # see docs/worker.md; "": the one of the settings
    price_per_hour: float | None = None
    currency: str = "USD"

    def __post_init__(self) -> None:
        fields.fits("name", self.name, r"[\w.-]{1,64}", "1 to 64 of A-Z a-z 0-9 . _ -")
        for field in ("address", "worker_address"):
            if field == "address" or self.worker_address:
                fields.fits(field, getattr(self, field), r"[\w.:-]+", "a host name or IP address")
        fields.within("port", self.port, 1, 65_535)
        fields.within("worker_port", self.worker_port, 1, 65_535)
        if self.host_key:
            fields.fits(
                "host_key", self.host_key, r"SHA256:[\w+/]{43}", "SHA256: and 43 characters"
            )
        fields.fits("type", self.type, r"[\w.-]{1,64}", "1 to 64 of A-Z a-z 0-9 . _ -")
        fields.within("slots", self.slots, 0, 99_999)
        fields.price("price_per_hour", self.price_per_hour)
        _check_path("folder", self.folder)


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[providers.NAME]`` of a fleet file, kind ``bare_metal``. Times are in seconds."""

    hosts: tuple[Host, ...]
    user: str = ""  # that hosts are entered as; "": the scheduler's own
    key: str = ""  # file of the private key, without a passphrase; "": ssh-agent's, or ~/.ssh/id_*
    known_hosts: str = ""  # file; "": ~/.ssh/known_hosts
    trust_on_first_use: bool = False  # a host that is not in known_hosts is believed, and noted
    connect: float = 10  # to reach and enter a host
    answer: float = 30  # for one step there
    unreachable: float = 300  # that a host which is installed may stay silent
    folder: str = "vestibule-worker"  # on each host, in its user's home if not absolute
    way: str = "auto"  # docker, process; auto: docker where its daemon answers
    flavor: str = "nvidia"
    model: str = ""  # that vLLM serves, where an order does not say
    arguments: tuple[str, ...] = ()  # more words for `vllm serve`
    environment: dict[str, str] = {}  # of the agents, e.g. HF_HUB_OFFLINE; never a secret
    secrets: tuple[str, ...] = ()  # names of the scheduler's own variables they get, e.g. HF_TOKEN
    listen: str = "0.0.0.0"  # what the agents listen on; off loopback they speak TLS
    drain: int = 25  # that a worker which is to end gives to what runs
    python: str = ""  # on the hosts, with the agent's libraries; "": they are installed
    vllm: str = ""  # the executable on the hosts; "": vllm_package is installed
    vllm_package: str = "vllm==0.33.0"  # for pip
    agent: str = ""  # file of the agent to install; "": the one that comes with Vestibule

    def __post_init__(self) -> None:
        names = [host.name for host in self.hosts]
        fields.require(bool(names), "hosts", "must name at least one")
        fields.require(len(set(names)) == len(names), "hosts", "two have the same name")
        places = [(h.address, h.port, h.user, h.folder) for h in self.hosts]
        fields.require(len(set(places)) == len(places), "hosts", "two are the same place")
        for field in ("connect", "answer"):
            fields.within(field, getattr(self, field), 1, 50)
        fields.require(self.connect + self.answer <= 55, "answer", "55 s at most with `connect`")
        fields.within("unreachable", self.unreachable, 10, 86_400)
        fields.within("drain", self.drain, 0, 3_600)
        fields.fits("way", self.way, "auto|docker|process", "auto, docker or process")
        fields.require(bool(self.folder), "folder", "must name one")
        _check_path("folder", self.folder)
        fields.fits("vllm_package", self.vllm_package, r"[\w.\[\],=<>!~-]+", "a package for pip")
        if self.model:
            fields.fits("model", self.model, fields.MODEL.pattern, "one line")
        fields.fits("listen", self.listen, r"[\w.:-]+", "a host name or IP address")
        fields.variables("environment", self.environment)
        for name in self.secrets:
            named = fields.VARIABLE.fullmatch(name) and not name.startswith(fields.OURS)
            fields.require(bool(named), "secrets", f"{name!r} cannot be passed on")
        for name, value in self.environment.items():
            fields.require("\n" not in value, "environment", f"{name} has more than one line")

    @property
    def with_tls(self) -> bool:
        """As the agent decides it for ``VESTIBULE_WORKER_TLS=auto``."""
        return not fields.is_loopback(self.listen)


def _check_path(field: str, path: str) -> None:
    parts = path.rstrip("/").split("/")
    fields.require(not {".", "..", "~"} & set(parts), field, "must be a plain path")
    plain = path == "" or (path.strip("/") != "" and "\n" not in path)
    fields.require(plain, field, "must name a folder of its own")
