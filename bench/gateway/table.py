"""What was found of each side, as a table, and beside the bare relay of the same run."""

from dataclasses import dataclass, field
from statistics import median

Pair = tuple[float, float]

MOST_P50, LEAST_RATE, LEAST_STREAMS, STREAMS, OVER_LITELLM = 1.3, 0.85, 0.85, 600, 20
ADDED = {"1 plain": "plain_ms", "1 stream": "first_ms_1", "64 paced streams": "first_ms_64"}
CPU = {
    "plain request": "plain_cpu_ms",
    "burst stream": "burst_cpu_ms",
    "paced stream": "paced_cpu_ms",
}
HEAD = (
    "                 plain, ms   requests/s   added first token, ms        CPU, ms a     streams/s"
    "   CPU, ms a stream  MB a 1,000   streams a core\n"
    "                 1 conn.     64 conn.     1 conn.     64, paced        plain request burst, 64"
    "   burst    paced    streams      seen, by CPU"
)


@dataclass
class Found:
    """Of one side; lists have an entry a round, pairs are the median and the 99th percentile, or
    the gateway's and Valkey's."""

    plain_ms: list[Pair] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    plain_cpu_ms: list[Pair] = field(default_factory=list)
    first_ms_1: list[Pair] = field(default_factory=list)
    burst_rates: list[float] = field(default_factory=list)
    burst_cpu_ms: list[Pair] = field(default_factory=list)
    first_ms_64: list[Pair] = field(default_factory=list)
    paced_cpu_ms: list[Pair] = field(default_factory=list)
    open_mb: float | None = None
    streams: int | None = None
    by_cpu: list[float] = field(default_factory=list)


def _mid(pairs: list[Pair]) -> Pair:
    return median(a for a, _ in pairs), median(b for _, b in pairs)


def _less(one: Pair, base: Pair) -> Pair:
    return one[0] - base[0], one[1] - base[1]


def print_table(found: dict[str, Found]) -> None:
    """One line a side; the upstream alone first."""
    print(HEAD)
    alone = found["alone"]
    for name, one in found.items():
        print(f"  {name:<14} {_line(one, alone)}")


def _line(one: Found, alone: Found) -> str:
    plain, first, paced = _mid(one.plain_ms), _mid(one.first_ms_1), _mid(one.first_ms_64)
    if one is not alone:
        first = _less(first, _mid(alone.first_ms_1))
        paced = _less(paced, _mid(alone.first_ms_64))
    cpu = [_mid(each)[0] for each in (one.plain_cpu_ms, one.burst_cpu_ms, one.paced_cpu_ms)]
    shown = [f"{each:5.2f}" if one is not alone else "    -" for each in cpu]
    memory = "  -" if one.open_mb is None else f"{one.open_mb:3.0f}"
    streams = "   -" if one.streams is None else f"{one.streams:4d}"
    streams += f" {median(one.by_cpu):6.0f}" if one.by_cpu else ""
    return (
        f"{plain[0]:5.2f}/{plain[1]:5.2f} {median(one.rates):6.0f}"
        f"      {first[0]:5.2f}/{first[1]:6.2f} {paced[0]:6.1f}/{paced[1]:6.1f}"
        f"        {shown[0]}   {median(one.burst_rates):9.0f}"
        f"    {shown[1]}    {shown[2]}       {memory}          {streams}"
    )


def print_ratios(found: dict[str, Found]) -> None:
    """Ours against the bare relay, round by round, and what is to be reached."""
    ours, bare, alone = (found.get(name) for name in ("ours", "bare", "alone"))
    if ours is None or bare is None or alone is None:
        return
    print("  ours / bare relay, of the same run (each round)")

    def show(what: str, ratios: list[float], wanted: str, mid: float | None = None) -> None:
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        mid = median(ratios) if mid is None else mid
        print(f"    {what:<34} {mid:5.2f}   ({each})   {wanted}")

    def each(ours: list[float], bare: list[float]) -> list[float]:
        return [a / b for a, b in zip(ours, bare, strict=True)]

    def added(one: list[Pair], base: list[Pair]) -> list[float]:
        return [a[0] - b[0] for a, b in zip(one, base, strict=True)]

    for what, name in ADDED.items():
        mine, floor, base = (getattr(one, name) for one in (ours, bare, alone))
        ours_ms, bare_ms = added(mine, base), added(floor, base)
        # Of the medians: at 64 the difference of a round is smaller than what disturbs it.
        show(
            f"added p50, {what} at a time",
            each(ours_ms, bare_ms),
            f"to reach: <= {MOST_P50}",
            median(ours_ms) / median(bare_ms),
        )
    show("requests/s, plain", each(ours.rates, bare.rates), f"to reach: >= {LEAST_RATE}")
    show("streams/s, burst", each(ours.burst_rates, bare.burst_rates), "")
    for what, name in CPU.items():
        mine, floor = ([own for own, _ in getattr(one, name)] for one in (ours, bare))
        show(f"CPU of a {what}", each(mine, floor), "")
    show("streams a core, by their CPU", each(ours.by_cpu, bare.by_cpu), "")
    if ours.streams and bare.streams:
        wanted = f"to reach: >= {LEAST_STREAMS}, and {STREAMS} streams: {ours.streams}"
        show("streams a core", [ours.streams / bare.streams], wanted)
    if (litellm := found.get("litellm")) is not None:
        ratio = median(ours.rates) / median(litellm.rates)
        print(f"    requests/s, ours / LiteLLM: {ratio:.0f}   to reach: >= {OVER_LITELLM}")
    for what, name in CPU.items():
        print(f"    Valkey's own CPU, ms a {what}: {_mid(getattr(ours, name))[1]:.2f}")
