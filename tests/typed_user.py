"""A user's lines, which `make package` has mypy check against the built wheel: types and a mistake must be seen."""

from bdpo import PreferencePair, load_pairs

pairs: list[PreferencePair] = load_pairs("starter").pairs
words: list[str] = pairs[0].chosen.split()
load_pairs(1)  # type: ignore[arg-type]  # an unused ignore is an error where types are not seen
