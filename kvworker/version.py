"""Which version of kvworker this is."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """The version of the installed distribution; "unknown" where kvworker runs without being installed."""
    try:
        return version("kvworker")
    except PackageNotFoundError:
        return "unknown"
