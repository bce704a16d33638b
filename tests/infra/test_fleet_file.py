"""The fleet's file: what it may say, and that every mistake in it is named."""

from pathlib import Path

import pytest

from admission.instance import Offer
from admission.settings import SettingsError
from infra import fleet_file
from scheduler.prices import priced
from tests.infra.conftest import ROOT

DEAR = Offer("host", "", "on-demand", 9.0)

WHOLE = """
[deployment]
name = "lab"
admission_url = "http://10.0.0.1:8600"

[providers.here]
kind = "local"
model = "/models/tiny"
capacity = 2

[pools.default]
providers = ["here"]
workers_min = 1
workers_max = 2
wait_target = 2.5
idle_load = 0.1

[[pools.default.schedule]]
start = "08:00"
end = "18:00"
workers_min = 2

[limits]
install = 900

[[prices]]
provider = "here"
price_per_hour = 0.4
currency = "EUR"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "fleet.toml"


def _problems(file: Path, text: str) -> list[str]:
    file.write_text(text)
    with pytest.raises(SettingsError) as raised:
        fleet_file.read(file)
    return [line.removeprefix(f"{file}: ") for line in str(raised.value).splitlines()]


def test_a_file_is_read_whole(file: Path) -> None:
    file.write_text(WHOLE)
    found = fleet_file.read(file)
    assert found.deployed.name == "lab"
    assert found.providers["here"].settings.capacity == 2
    pool = found.pools["default"]
    assert pool.providers == ("here",)
    assert pool.spec.pool == "default"
    assert (pool.spec.workers_max, pool.spec.wait_target_ms, pool.spec.idle_load) == (2, 2_500, 0.1)
    assert pool.spec.schedule[0].workers_min == 2
    assert found.limits.install_s == 900
    assert found.limits.start_s == 600  # its default
    assert found.prices[0].currency == "EUR"


def test_a_pool_that_names_no_provider_may_use_all(file: Path) -> None:
    file.write_text('[providers.a]\nkind="local"\n[providers.b]\nkind="local"\n[pools.x]\n')
    assert fleet_file.read(file).pools["x"].providers == ("a", "b")


def test_a_digest_is_of_what_a_file_says(file: Path) -> None:
    file.write_text(WHOLE)
    first = fleet_file.read(file).digest
    file.write_text(f"# a word more\n{WHOLE}")
    assert fleet_file.read(file).digest == first
    file.write_text(WHOLE.replace("capacity = 2", "capacity = 3"))
    assert fleet_file.read(file).digest == first  # of a local provider: each host has its own
    file.write_text(WHOLE.replace("wait_target = 2.5", "wait_target = 3"))
    assert fleet_file.read(file).digest not in (first, "")


def test_every_mistake_is_named_at_once(file: Path) -> None:
    text = """
    extra = 1
    [deployment]
    admission_url = "here"
    [providers.here]
    kind = "local"
    capacity = 0
    slots = "many"
    colour = "red"
    [providers.Cloud]
    kind = "clouds"
    [pools.default]
    providers = ["there"]
    workers_min = "one"
    wait_target = 0.05
    saturation = 7
    [pools.other]
    workers_min = 4
    workers_max = 3
    stale = 300
    [[pools.other.schedule]]
    start = "8"
    end = "18:00"
    [limits]
    installation = 5
    [[prices]]
    price_per_hour = -1
    """
    problems = _problems(file, text)
    places = [problem.partition(": ")[0] for problem in problems]
    assert places == [
        "extra",
        "providers.here.colour",
        "providers.here.slots",
        "providers.here.capacity",
        "providers.Cloud",
        "providers.Cloud.kind",
        "pools.default.providers",
        "pools.default.workers_min",
        "pools.default.wait_target",
        "pools.default.saturation",
        "pools.other.schedule",
        "pools.other.workers_min",
        "pools.other.stale",
        "deployment.admission_url",
        "limits.installation",
        "prices.1.provider",
    ]
    said = dict(problem.split(": ", 1) for problem in problems)
    assert said["pools.default.wait_target"] == "0.05 is not between 0.1 and 21600"
    assert said["pools.other.stale"] == "300 is above silence"
    assert "[0]" in said["pools.other.schedule"]
    assert "08:30" in said["pools.other.schedule"]
    assert said["pools.default.providers"] == "there is no [providers.there]"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("pools = 3", "pools: is no table"),
        ("[providers]\nhere = 1", "providers.here: is no table: write [providers.NAME]"),
        ("[prices]\nprovider='a'", "prices: written as [[prices]], one table for each price"),
        ("[pools.'a b']", "pools.a b: a pool's name is 1 to 64 characters of a-z 0-9 -"),
        ("[pools.a]\npool = 'b'", "pools.a.pool: the table's own name says it"),
        ("[pools.a]\nwait_target_ms = 5", "pools.a.wait_target_ms: unknown"),
        ("[pools.a]\nworkers_max = true", "pools.a.workers_max: expected `int`, got `bool`"),
        ("[pools.a]\nproviders = 'x'", "pools.a.providers: a list of names"),
    ],
)
def test_a_mistake_is_named_by_its_place(file: Path, text: str, problem: str) -> None:
    found = _problems(file, text)
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_what_is_no_toml_and_what_is_not_there(file: Path) -> None:
    assert "is not TOML" in _problems(file, "[")[0]
    file.unlink()
    with pytest.raises(SettingsError, match="VESTIBULE_FLEET: .*No such file"):
        fleet_file.read(file)


def test_the_example_of_the_documentation_is_one() -> None:
    found = fleet_file.read(ROOT / "docs" / "fleet.toml")
    assert {planned.kind for planned in found.providers.values()} == {"local", "bare-metal", "aws"}
    assert found.pools["default"].providers == ("rack", "aws")
    assert [offer.price_per_hour for offer in priced([DEAR], "rack", found.prices)] == [0.29]
    assert priced([DEAR], "here", found.prices) == [DEAR]
