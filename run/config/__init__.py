"""Settings of a command: defaults <- preset <- recipe file (TOML) <- flags, validated on construction.

A command's settings are a frozen keyword-only dataclass. Its fields are the flags (kebab-case), the comment or docstring next to a field is
its help text, and `__post_init__` refuses bad values.
"""

from run.config.checks import names, one_of, positive, seconds
from run.config.flags import parse
from run.config.layers import as_dict, changed_settings, with_settings
from run.config.recipe import read_recipe, to_toml, write_config

__all__ = [
    "as_dict", "changed_settings", "names", "one_of", "parse", "positive", "read_recipe", "seconds", "to_toml", "with_settings",
    "write_config",
]  # fmt: skip
