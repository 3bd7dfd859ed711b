"""`bdpo.method.losses` under its public name."""

from bdpo.method.losses import *  # noqa: F403
