"""Settings of any kind round trip through config.toml; mistakes in a recipe are refused by name."""

import dataclasses
import importlib
import math
import types
import typing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as some

from eval.compare import CompareConfig
from run.config import as_dict, changed_settings, names, parse, positive, read_recipe, to_toml, with_settings, write_config
from run.errors import SettingError, UserError

COMMANDS = {
    "eval.compare": "CompareConfig", "ctr.train": "TrainConfig", "pretrain.train": "TrainConfig", "features.embed": "EmbedConfig",
    "features.cluster": "ClusterConfig", "data.validate": "ValidateConfig", "ctr.export": "ExportConfig", "ctr.score": "ScoreConfig",
    "ctr.bulk_predict": "BulkConfig",
}  # fmt: skip
PRESETS = {"tiny": {"seeds": 1, "inner": {"temperature": 0.5}}, "small": {}}


@dataclass(frozen=True, kw_only=True)
class Inner:
    temperature: float = 0.05  # divides the cosine
    batch_size: int = 8  # rows of a step

    def __post_init__(self):
        positive("temperature", self.temperature)
        if self.batch_size > 1000 * self.temperature:
            raise SettingError("batch_size", self.batch_size, "too large for this temperature")


@dataclass(frozen=True, kw_only=True)
class Source:
    data: str = "shop"  # which log
    folder: Path | None = None  # where it is
    inner: Annotated[Inner, tyro.conf.arg(name="")] = field(default_factory=Inner)

    def resolved(self):
        return dataclasses.replace(self, data=str(Path(self.data).absolute()))


@dataclass(frozen=True, kw_only=True)
class Settings:
    preset: str = "small"  # sizes
    seeds: int = 3  # how many
    from_: Annotated[str, tyro.conf.arg(name="from")] = ""  # merge these
    start: Literal["cold", "warm"] = "cold"  # of models
    limit: int | None = 5  # at most
    rate: float | None = None  # a share
    shares: tuple[float, float] = (0.5, 0.5)  # of two splits
    hidden: tuple[int, ...] = (8, 4)  # layers
    controls: bool = False  # more rows
    out: Path = Path("runs/x")  # run folder
    source: Annotated[Source, tyro.conf.arg(name="")] = field(default_factory=Source)
    inner: Inner = field(default_factory=Inner)


def parsed(*argv, config=Settings, presets=PRESETS):
    return parse(config, list(argv), prog="x", description="d", presets=presets)


def read(text, tmp_path, *argv):
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    return parsed("--recipe", str(tmp_path / "r.toml"), *argv)


def test_flags_win_over_the_recipe_and_the_recipe_over_the_preset(tmp_path):
    assert parsed("--preset", "tiny") == Settings(preset="tiny", seeds=1, inner=Inner(temperature=0.5))
    recipe = "preset = 'tiny'\n[inner]\ntemperature = 0.1\n"
    assert read(recipe, tmp_path) == Settings(preset="tiny", seeds=1, inner=Inner(temperature=0.1))
    assert read(recipe, tmp_path, "--inner.temperature", "0.2").inner.temperature == 0.2
    assert read(recipe, tmp_path, "--preset=small") == Settings(inner=Inner(temperature=0.1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temprature = 1", "no setting 'temprature'; did you mean 'temperature'?"),
        ("[inner]\ntemprature = 0.1", "r.toml: inner: no setting 'temprature'; did you mean 'temperature'?"),
        ("seeds = 'three'", "seeds: value 'three'; give a whole number"),
        ("seeds = true", "seeds: value True; give a whole number"),
        ("seeds = 3.0", "seeds: value 3.0; give a whole number"),
        ("limit = 'no'", "limit: value 'no'; give a whole number"),
        ("rate = 'all'", "rate: value 'all'; give a number"),
        ("rate = true", "rate: value True; give a number"),
        ("controls = 1", "controls: value 1; give true or false"),
        ("start = 'hot'", "start: value 'hot'; give 'cold' or 'warm'"),
        ("shares = [0.5]", "shares: value [0.5]; give a list of 2 numbers"),
        ("hidden = [8, 'x']", "hidden: value [8, 'x']; give a list of whole numbers"),
        ("out = 3", "out: value 3; give a path, as text"),
        ("inner = 3", "inner: value 3; give a table of settings"),
        ("data = 'a'\n[source]\ndata = 'b'", "setting 'data' is given twice"),
        ("batch_size = 1\nbatch-size = 2", "setting 'batch_size' is given twice"),
        ("seeds = [", "not readable as TOML"),
        ("[inner]\ntemperature = -1.0", "value -1.0; give a number above 0"),
        ("preset = 'smal'", "no preset 'smal'; did you mean 'small'?"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(UserError) as error:
        read(text, tmp_path)
    assert message in str(error.value)


def test_a_recipe_is_utf_8_wherever_it_is_read(tmp_path):
    (tmp_path / "r.toml").write_bytes("\ufeffdata = 'Läden'".encode())
    assert read_recipe(tmp_path / "r.toml") == {"data": "Läden"}
    (tmp_path / "r.toml").write_bytes("data = 'Läden'".encode("latin-1"))
    with pytest.raises(UserError, match="not readable as TOML"):
        read_recipe(tmp_path / "r.toml")


def test_a_recipe_may_spell_a_setting_as_its_field_or_its_flag(tmp_path):
    assert read("from = 'a'", tmp_path) == read("from_ = 'a'", tmp_path) == parsed("--from", "a")
    flat, nested = "temperature = 0.5\nbatch-size = 400", "[source.inner]\nbatch_size = 400\ntemperature = 0.5"
    assert read(flat, tmp_path) == read(nested, tmp_path) == parsed("--batch-size", "400", "--temperature", "0.5")


def test_an_optional_setting_can_be_given_and_reset_to_none(tmp_path):
    found = read("rate = 1\nlimit = 'None'\nfolder = 'x'", tmp_path)
    assert (found.rate, found.limit, found.source.folder) == (1.0, None, Path("x"))
    assert read(to_toml(as_dict(found)), tmp_path) == found


def test_an_unknown_name_in_a_list_is_refused_with_the_nearest():
    assert names("encoders", "a, b,a", ["a", "b"]) == ["a", "b"]
    with pytest.raises(SettingError, match="did you mean 'courier'"):
        names("encoders", "courir", ["courier", "simclr"])


def test_text_that_is_not_unicode_is_refused_before_anything_is_written():
    with pytest.raises(SettingError, match=r"source.data.*not valid UTF-8"):
        parsed("--data", "shop\udcff")


def test_a_run_folder_records_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_config(Path("run"), Settings(out=Path("run"), source=Source(data="shop", folder=Path("pictures"))))
    noted = parsed("--recipe", "run/config.toml")
    assert noted.out == tmp_path / "run"
    assert noted.source == Source(data=str(tmp_path / "shop"), folder=tmp_path / "pictures")


def values(hint):
    """Values of a field's type, extreme ones included."""
    hint = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return some.one_of(*map(values, arguments))
    if origin is Literal:
        return some.sampled_from(arguments)
    if origin is tuple:
        return some.lists(values(arguments[0]), min_size=1).map(tuple) if ... in arguments else some.tuples(*map(values, arguments))
    text = some.text(some.characters(exclude_categories=["Cs"]))
    return {
        bool: some.booleans(), int: some.integers() | some.integers(0, 9), float: some.floats(allow_nan=False) | some.floats(0, 1),
        str: text, Path: text.map(Path), types.NoneType: some.none(),
    }[hint]  # fmt: skip


@some.composite
def varied(draw, config):
    """A config with other values in some of its fields: as many as its checks accept together."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for one in dataclasses.fields(config):
        now = getattr(config, one.name)
        if one.name == "preset" or (not dataclasses.is_dataclass(now) and not draw(some.booleans())):
            continue
        new = draw(varied(now) if dataclasses.is_dataclass(now) else values(hints[one.name]))
        try:
            config = dataclasses.replace(config, **{one.name: new})
        except UserError:
            continue
        except (TypeError, OverflowError):  # a check that compares None with a number, say
            continue
    return config


def check_round_trip(data, config_class, presets):
    needed = {"folder": Path("shop")} if config_class.__name__ == "ValidateConfig" else {}
    config = config_class(**needed)
    if presets:
        preset = data.draw(some.sampled_from(sorted(presets)))
        config = with_settings(config, {**presets[preset], "preset": preset}, source=preset)
    config = data.draw(varied(config))
    import tomllib

    written = tomllib.loads(to_toml(as_dict(config)))
    assert with_settings(config_class(**needed), written, source="config.toml") == config
    return config


@settings(max_examples=60, deadline=None)
@given(data=some.data())
def test_settings_of_any_type_and_value_round_trip_through_toml(data):
    check_round_trip(data, Settings, PRESETS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_settings_round_trip_through_toml(command):
    module = importlib.import_module(command)

    @settings(max_examples=12, deadline=None)
    @given(data=some.data())
    def check(data):
        check_round_trip(data, getattr(module, COMMANDS[command]), getattr(module, "PRESETS", None))

    check()


@pytest.mark.parametrize("preset", ["tiny", "paper"])
@pytest.mark.parametrize("command", ["eval.compare", "ctr.train", "pretrain.train"])
def test_a_run_folders_config_given_as_a_recipe_is_the_same_run(command, preset, tmp_path):
    module = importlib.import_module(command)
    config_class = getattr(module, COMMANDS[command])
    strange = [
        "--preset",
        preset,
        "--world-seed",
        "-3",
        "--out",
        str(tmp_path / 'a "b"\\\tc'),
        "--split-fractions",
        "0.25",
        "0.25",
        "1e-300",
        "0.5",
    ]
    first = parsed(*strange, config=config_class, presets=module.PRESETS)
    write_config(tmp_path, first)
    assert parsed("--recipe", str(tmp_path / "config.toml"), config=config_class, presets=module.PRESETS) == first
    other = parsed("--recipe", str(tmp_path / "config.toml"), "--preset", "small", config=config_class, presets=module.PRESETS)
    assert other == dataclasses.replace(first, preset="small")


def test_no_preset_sets_what_a_recipe_could_not_reset():
    """None is left out of TOML, so an optional setting that a preset sets could not be reset to None."""
    for command in ("eval.compare", "ctr.train", "pretrain.train"):
        module = importlib.import_module(command)
        config_class = getattr(module, COMMANDS[command])
        for preset in module.PRESETS:
            config = parsed("--preset", preset, config=config_class, presets=module.PRESETS)
            nones = {name for name, value in flat(as_dict(config_class())) if value is None}
            assert nones == {name for name, value in flat(as_dict(config)) if value is None}


def test_settings_that_differ_are_named_as_their_flags():
    default = CompareConfig()
    changed = replace(default, out=Path("b"), ctr=replace(default.ctr, retrieve=50), forms=replace(default.forms, levels=2))
    assert changed_settings(changed, default) == {"out": "b", "levels": 2, "ctr.retrieve": 50}
    assert changed_settings(default, default) == {}


def flat(table, prefix=""):
    for name, value in table.items():
        yield from flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]


def test_infinite_and_tiny_numbers_round_trip():
    for number in (math.inf, -math.inf, 5e-324, -0.0, 1e308):
        again = with_settings(Settings(), {"rate": number}, source="")
        assert math.copysign(1, again.rate) == math.copysign(1, number)
        assert again.rate == number
