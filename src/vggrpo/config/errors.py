"""Errors that a person can act on: the command line shows their text, complete sentences, without a trace."""


class VggrpoError(Exception):
    """Base of every error whose message names what is wrong and what to do about it."""


class ConfigError(VggrpoError, ValueError):
    """Settings are wrong. The text lists every problem, one a line, by its path in the settings."""


class CorruptFileError(VggrpoError, ValueError):
    """A file exists but its content is damaged, truncated or of another kind than expected."""


class DiskFullError(VggrpoError, OSError):
    """No space was left while writing; what stood at the destination before is unchanged."""


class AlarmError(VggrpoError):
    """A run was ended by its own alarms, as its settings ask."""


class RunError(VggrpoError):
    """A run folder cannot be created or resumed as asked."""
