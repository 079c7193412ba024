"""The errors that a user can mend.

Each message is one line that names the value that was wrong and says what to do. The
command line prints it and exits with code 2; any other exception is a bug of ours.
"""

from __future__ import annotations


class HpsearchError(Exception):
    """Base of all errors that hpsearch raises on purpose."""


class ConfigError(HpsearchError, ValueError):
    """A configuration holds a value that cannot be trained."""


class InfeasibleError(ConfigError):
    """A configuration that can never be trained on this data or device: images too small for the
    depth, for example. A search tells its sampler so.
    """


class DataError(HpsearchError, ValueError):
    """Data that does not exist, cannot be read, or cannot be split as asked."""


class SpaceError(HpsearchError, ValueError):
    """An unknown family or parameter, or a value outside a search space."""


class SearchError(HpsearchError):
    """A search that cannot be started, resumed or read."""


class CheckpointError(HpsearchError):
    """A checkpoint that is missing, truncated or altered."""


class NonFiniteLossError(HpsearchError, ArithmeticError):
    """The loss became infinite or NaN: the run cannot get better from here."""
