"""Knows how the cache of built components behaves. Runs with the fast suite; builds nothing big."""

import sys
from pathlib import Path

import pytest

from tests.e2e.build import BuildError, Recipes


class Bakery:
    """A component whose building is one file and can be counted."""

    def __init__(self, cache: Path) -> None:
        self.baked = 0
        self._cache = cache

    def get(self, recipe: str, *, burns: bool = False) -> Path:
        return Recipes(self._cache, lambda _: None).once(
            "bread", recipe, "loaf", lambda folder: self._bake(folder, burns)
        )

    def _bake(self, folder: Path, burns: bool) -> None:
        self.baked += 1
        assert not (folder / "loaf").exists()
        (folder / "loaf").touch()
        if burns:
            raise KeyboardInterrupt


def test_a_complete_component_is_reused(tmp_path: Path) -> None:
    bakery = Bakery(tmp_path)
    assert bakery.get("flour") == bakery.get("flour") == tmp_path / "bread"
    assert bakery.baked == 1


def test_a_changed_recipe_builds_anew(tmp_path: Path) -> None:
    bakery = Bakery(tmp_path)
    bakery.get("flour")
    bakery.get("flour and salt")
    assert bakery.baked == 2


def test_an_interrupted_build_is_done_again(tmp_path: Path) -> None:
    bakery = Bakery(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        bakery.get("flour", burns=True)
    bakery.get("flour")
    assert bakery.baked == 2


def test_a_component_whose_result_was_deleted_is_built_again(tmp_path: Path) -> None:
    bakery = Bakery(tmp_path)
    (bakery.get("flour") / "loaf").unlink()
    bakery.get("flour")
    assert bakery.baked == 2


def test_a_failing_command_is_named_with_what_it_said(tmp_path: Path) -> None:
    recipes = Recipes(tmp_path, lambda _: None)
    script = "print('no flour left'); raise SystemExit(3)"
    with pytest.raises(BuildError) as caught:
        recipes.run("bread", sys.executable, "-c", script)
    assert str(caught.value).startswith("bread could not be built")
    assert "ended with status 3" in str(caught.value)
    assert str(caught.value).endswith("no flour left")


def test_progress_says_how_long_it_takes(tmp_path: Path) -> None:
    said: list[str] = []
    Recipes(tmp_path, said.append).run("bread", sys.executable, "-c", "")
    assert said[0].startswith("[e2e build    0.0 s] bread: ")
