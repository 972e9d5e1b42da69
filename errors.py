"""The root of Lumina's errors.

Every error that a user may meet derives from ``LuminaError`` and lives beside what raises it. Its text names the thing,
the value and the way out, in one line; an entry point prints that line and nothing else.
"""


class LuminaError(Exception):
    """Something that Lumina can explain in one line."""

    transient = False
    """Whether trying the same again, a little later, may help."""
    exhausted = False
    """Whether it was tried again already, with growing waits: then a later run may help, but not the same one."""
