"""What an operator chooses of the workers on this machine."""

from msgspec import Struct

from infra.providers import fields


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[providers.NAME]`` of a fleet file, kind ``local``. Times are in seconds."""

    model: str = ""  # what vLLM serves, where an order does not say: a folder, or a hub's name
    vllm: str = "vllm"  # the executable
    arguments: tuple[str, ...] = ()  # more words for `vllm serve`
    command: tuple[str, ...] = ()  # instead of `vestibule worker`; it finds all in its environment
    environment: dict[str, str] = {}  # more of it, e.g. CUDA_VISIBLE_DEVICES; never a secret
    capacity: int = 1  # workers at the same time
    slots: int = 8  # requests that one of them runs well at once
    type: str = "process"  # what orders call it
    drain: int = 25  # that a worker which is to end gives to what runs
    price_per_hour: float | None = None  # of one worker, where somebody charges for this machine
    currency: str = "USD"
    folder: str = ""  # of its workers; "": machines/NAME in the state folder

    def __post_init__(self) -> None:
        fields.within("capacity", self.capacity, 1, 1_000)
        fields.within("slots", self.slots, 1, 99_999)
        fields.within("drain", self.drain, 0, 3_600)
        fields.price("price_per_hour", self.price_per_hour)
        fields.fits("type", self.type, r"[\w.-]{1,64}", "1 to 64 of A-Z a-z 0-9 . _ -")
        if self.model:
            fields.fits("model", self.model, fields.MODEL.pattern, "one line")
        fields.variables("environment", self.environment)
        fields.require(bool(self.vllm), "vllm", "must name an executable")
        if self.command:
            fields.require(bool(self.command[0]), "command", "must begin with an executable")
            said = "is for `vestibule worker`, and there is a command instead"
            fields.require(not self.arguments, "arguments", said)
