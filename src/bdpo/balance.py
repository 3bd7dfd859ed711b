"""`bdpo.method.balance` under its public name."""

from bdpo.method.balance import *  # noqa: F403
