"""Every recipe in the repository is accepted by its command."""

from pathlib import Path

import pytest

from eval import compare
from pretrain import train
from run.config import parse

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.toml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_changes_settings_of_its_own_command(recipe):
    commands = {"eval.compare": (compare.CompareConfig, compare.PRESETS), "pretrain.train": (train.TrainConfig, train.PRESETS)}
    text = recipe.read_text()
    config, presets = next(both for name, both in commands.items() if f"python -m {name} --recipe recipes/{recipe.name}" in text)
    read = parse(config, ["--recipe", str(recipe)], prog=recipe.stem, description="", presets=presets)
    assert read != parse(config, [], prog=recipe.stem, description="", presets=presets)
