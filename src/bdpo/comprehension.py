"""`bdpo.method.comprehension` under its public name."""

from bdpo.method.comprehension import *  # noqa: F403
