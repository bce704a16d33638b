"""What a field of a provider's settings must be; what is wrong is said with the field's name."""

import re
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MODEL = re.compile(r"[!-~ ]{1,2048}")  # as the agent takes it, and always in one line
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|(API|ACCESS|PRIVATE)_?KEY", re.I)
OURS = (
    "WORKER_",
    "VESTIBULE_WORKER_",
    "VESTIBULE_ADMISSION_URL",
    "VESTIBULE_POOL",
    "VESTIBULE_STATE_DIR",
)
"""What a provider says itself, so that no machine takes the name of another."""
PRICE_MAX = 1_000_000  # an hour, as `scheduler.prices` has it


def require(holds: bool, field: str, rule: str) -> None:
    """Raises ValueError("field: rule") unless it holds."""
    if not holds:
        raise ValueError(f"{field}: {rule}")


def within(field: str, value: float, low: float, high: float) -> None:
    """A number from ``low`` to ``high``."""
    require(low <= value <= high, field, f"must be from {low:g} to {high:g}, not {value:g}")


def price(field: str, value: float | None) -> None:
    """Money an hour, or None where nothing is billed."""
    rule = f"must be more than 0 and less than {PRICE_MAX:,.0f}, or left out"
    require(value is None or 0 < value < PRICE_MAX, field, rule)


def fits(field: str, value: str, pattern: str, rule: str) -> None:
    """Text of a pattern, which ``rule`` says in words."""
    require(re.fullmatch(pattern, value) is not None, field, f"must be {rule}, not {value!r}")


def variables(field: str, names: Iterable[str], *, kept: Iterable[str] = OURS) -> None:
    """Names of an environment's variables, none of them a secret or one that we say ourselves."""
    for name in names:
        require(VARIABLE.fullmatch(name) is not None, field, f"{name!r} is no variable's name")
        require(not name.startswith(tuple(kept)), field, f"{name} is said by the provider itself")
        require(
            SECRET.search(name) is None,
            field,
            f"{name} looks like a secret, which is not kept in this file",
        )


def placed(folder: Path, path: str) -> Path:
    """A path of a fleet file, which lies in ``folder``."""
    return folder / Path(path).expanduser()


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means the machine that uses it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
