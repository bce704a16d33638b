"""A trace of real requests, as Azure's public dataset of LLM inference has them (2023).

CSV with ``TIMESTAMP`` (ISO 8601, UTC), ``ContextTokens`` and ``GeneratedTokens``, in order.
"""

import csv
from datetime import datetime
from pathlib import Path

from infra.errors import CommandError
from infra.load_test.chat import Said

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_MICROSECONDS = 26  # characters; the trace has a digit more


def read_trace(path: Path, minutes: float, speed: float) -> list[tuple[float, Said]]:
    """The first ``minutes`` of a trace, ``speed`` times as fast: when, and how much was said.

    Raises:
        CommandError: no file, or no such trace; names the line.
    """
    asked: list[tuple[float, Said]] = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise CommandError(f"{path}: no column {missing[0]}; it has to have {COLUMNS}")
            first: datetime | None = None
            for row in rows:
                at, said = _read(path, rows.line_num, row)
                first = first or at
                after_s = (at - first).total_seconds()
                if after_s > minutes * 60:
                    break
                asked.append((after_s / speed, said))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CommandError(f"{path} is no CSV: {error}") from error
    if not asked:
        raise CommandError(f"{path}: no request in it")
    return asked


def _read(path: Path, line: int, row: dict[str, str]) -> tuple[datetime, Said]:
    try:
        at = datetime.fromisoformat(row["TIMESTAMP"][:_MICROSECONDS])
        words, answer = int(row["ContextTokens"]), int(row["GeneratedTokens"])
    except (ValueError, TypeError) as error:
        raise CommandError(f"{path}, line {line}: {error}") from error
    return at, Said(max(1, words), max(1, answer))
