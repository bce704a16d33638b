"""The fleet's file of a deployment, checked before the scheduler's container is given it."""

from pathlib import Path

from infra.errors import CommandError

KIND = "aws"


def check(path: Path, name: str) -> None:
    """That the container of the deployment ``name`` can run with the file at ``path``.

    Raises:
        SettingsError: it is no fleet's file; names every field.
        CommandError: it is one for another place.
    """
    try:
        from infra import fleet_file  # with a scheduler's libraries, which other commands spare
    except ModuleNotFoundError as error:
        words = f"--fleet: is checked with the library {error.name}, which is missing (make setup)"
        raise CommandError(words) from error
    file = fleet_file.read(path)
    if file.deployed.name != name:
        raise CommandError(
            f"{path}: deployment.name: must be {name}: by that tag the scheduler may end machines"
        )
    for provider, planned in file.providers.items():
        place = f"{path}: providers.{provider}"
        if planned.kind != KIND:
            raise CommandError(
                f"{place}.kind: a container without keys and disk runs {KIND} alone,"
                f" not {planned.kind}"
            )
        for field in ("user_data", "profile"):
            if getattr(planned.settings, field):
                raise CommandError(f"{place}.{field}: is a file, which the container has not")
