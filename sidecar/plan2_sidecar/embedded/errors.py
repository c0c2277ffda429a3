"""Why `--embedded` does not start, in words for the person at the laptop."""


class CannotStart(Exception):
    """The message says what to do."""


class PackagesMissing(CannotStart):
    """The extra `embedded` is not installed, or one of its programs is not to be found."""
