"""Patient and study identifiers to salted hashes; the salt stays with its owner, apart from every library.

The owner's key lies in one place for all libraries, and the same one as on the command line.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from LesionLib.errors import CaseLibraryError
from LesionLib.io.private_files import private_folder

SALT_BYTES = 32
HASH_CHARS = 32
_HASH = re.compile(rf"[0-9a-f]{{{HASH_CHARS}}}")
_KEY_HEADER = "LesionLens pseudonym key 1; keep private, never beside a library you share"
_DOMAINS = ("patient", "study")


class Pseudonym(str):
    """The hash of an identifier. ``earlier``: what earlier versions made of it, by which their libraries know it."""

    __slots__ = ("earlier",)

    def __new__(cls, value: str, earlier: tuple[str, ...] = ()) -> Pseudonym:
        """The hash ``value`` of 32 hexadecimal characters."""
        pseudonym = super().__new__(cls, value)
        pseudonym.earlier = tuple(form for form in dict.fromkeys(earlier) if form != value)
        return pseudonym


def forms_of(value: str) -> tuple[str, ...]:
    """A hash in every form in which a library may hold it, today's first."""
    return (str(value), *getattr(value, "earlier", ()))


def is_pseudonym(value: object) -> bool:
    """Whether ``value`` has the form of a hash made here: 32 lower-case hexadecimal characters."""
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


@dataclass(frozen=True)
class Pseudonymiser:
    """Turns identifiers into hashes that only the holder of the same key file can make again.

    ``salt`` is 32 random bytes. It is left out of ``repr``: logs must not carry it.
    """

    salt: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse a salt that is not 32 bytes (`CaseLibraryError`)."""
        if not isinstance(self.salt, bytes) or len(self.salt) != SALT_BYTES:
            msg = f"A pseudonym salt is {SALT_BYTES} bytes; use Pseudonymiser.create or Pseudonymiser.load."
            raise CaseLibraryError(msg)

    @classmethod
    def create(cls, path: str | Path) -> Pseudonymiser:
        """Write a new key file at ``path``, readable by its owner only (mode 0600), and return it.

        `CaseLibraryError` when the file exists (a lost salt can't be made again, so none is ever
        overwritten) or can't be written.
        """
        path = Path(path)
        salt = secrets.token_bytes(SALT_BYTES)
        try:
            # The mode is given at creation: a chmod afterwards would leave a moment open to everyone.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            msg = f"{path} exists; load it, or give another name: a key that is overwritten is lost for ever."
            raise CaseLibraryError(msg) from error
        except OSError as error:
            msg = f"{path}: the key file cannot be written ({error.strerror}); choose another folder."
            raise CaseLibraryError(msg) from error
        try:
            with os.fdopen(descriptor, "w", encoding="ascii", newline="\n") as file:
                file.write(f"{_KEY_HEADER}\n{salt.hex()}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            path.unlink(missing_ok=True)
            msg = f"{path}: the key file cannot be written ({error.strerror}); make room on the disk."
            raise CaseLibraryError(msg) from error
        return cls(salt)

    @classmethod
    def load(cls, path: str | Path) -> Pseudonymiser:
        """Read the key file at ``path``.

        `CaseLibraryError` when it is missing, is not a key file, or others on this computer may read it.
        """
        path = Path(path)
        try:
            if os.name == "posix" and path.stat().st_mode & 0o077:
                msg = f"{path}: others may read this key; make it private first (chmod 600)."
                raise CaseLibraryError(msg)
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError as error:
            msg = f"{path}: the key file cannot be read ({error.strerror}); create one or give its place."
            raise CaseLibraryError(msg) from error
        except UnicodeDecodeError:
            lines = []
        if len(lines) != 2 or lines[0] != _KEY_HEADER or not re.fullmatch(r"[0-9a-f]{64}", lines[1]):
            msg = f"{path} is not a pseudonym key file; give the file that Pseudonymiser.create wrote."
            raise CaseLibraryError(msg)
        return cls(bytes.fromhex(lines[1]))

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal characters that tell this key from others and lead back to neither the key nor anybody."""
        return self._digest(_FINGERPRINT)

    def hash(self, identifier: str, *, domain: Literal["patient", "study"] = "patient") -> Pseudonym:
        """Return the 32-character hash of ``identifier``; same key, domain and identifier, same hash.

        Capitals, white space, NUL and the way in which accents are encoded do not matter: one system's ``Ab 12`` is the
        next one's ``AB12``. The domain keeps a patient and a study that happen to share an identifier apart.
        `CaseLibraryError` for an empty or non-text identifier.
        """
        if domain not in _DOMAINS:
            msg = f"The domain is {domain!r}; give one of {', '.join(_DOMAINS)}."
            raise CaseLibraryError(msg)
        if not isinstance(identifier, str) or not _normalised(identifier):
            # The value stays out of the message: messages end up in logs.
            msg = f"An empty or non-text {domain} identifier cannot be hashed; give the identifier as text."
            raise CaseLibraryError(msg)
        as_typed = identifier.strip(" \0")  # what version 0.1 hashed
        return Pseudonym(
            self._digest(_message(domain, _normalised(identifier))), (self._digest(_message(domain, as_typed)),)
        )

    def hashes(self, patient: str, study: str | None = None) -> tuple[Pseudonym, Pseudonym]:
        """Patient and study hash; where no study is known the patient's identifier stands in, in the studies' domain."""
        return self.hash(patient), self.hash(study or patient, domain="study")

    def _digest(self, message: bytes) -> str:
        return hmac.new(self.salt, message, hashlib.sha256).hexdigest()[:HASH_CHARS]


_FINGERPRINT = b"lesionlens\0key"  # no message of an identifier: those have two zeros


def _message(domain: str, identifier: str) -> bytes:
    return f"lesionlens\0{domain}\0{identifier}".encode("utf-8", "surrogatepass")


def _normalised(identifier: str) -> str:
    """In small letters, composed (NFC), without white space and characters that cannot be seen."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", identifier).casefold())
    return "".join(c for c in folded if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf"))


def settings_folder() -> Path:
    """Where LesionLens keeps what belongs to its user and not to a library."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "lesionlens"


def default_key_path() -> Path:
    """The key that is taken where no other is named."""
    return settings_folder() / "pseudonym.key"


def pseudonymisation_key(path: Path | None = None) -> Pseudonymiser:
    """The key at ``path`` (default: the owner's); made there at the first use. Raises `CaseLibraryError`."""
    path = path or default_key_path()
    if path.exists():
        return Pseudonymiser.load(path)
    try:
        private_folder(path.parent)
    except OSError as error:
        msg = f"{path.parent} cannot be made ({error.strerror}); choose another place for the key."
        raise CaseLibraryError(msg) from error
    return Pseudonymiser.create(path)


def key_if_there(path: Path | None = None) -> Pseudonymiser | None:
    """The key at ``path``, or None: a search makes no key, it could not match anything in a library. `CaseLibraryError`."""
    path = path or default_key_path()
    return Pseudonymiser.load(path) if path.exists() else None
