"""`bdpo.score.folder` under its public name."""

from bdpo.score.folder import *  # noqa: F403
