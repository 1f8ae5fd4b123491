"""What can be wrong with the input, as exceptions whose one-line text says what was given and what to do."""


class LesionLensError(ValueError):
    """Base of every error a user can mend. The message is one line, in plain English."""


class VolumeError(LesionLensError):
    """The CT cannot be used: not 3-D, not finite, no geometry, unreadable."""


class BoxError(LesionLensError):
    """A box cannot be used: zero size, outside the volume, malformed file."""


class BundleError(LesionLensError):
    """A model folder is unknown, incomplete, tampered with, or does not do here what it did where it was made."""


class CaseLibraryError(LesionLensError):
    """A case library cannot be used: not a library, another schema, another model."""


class OutputError(LesionLensError):
    """The place for the results cannot be used."""
