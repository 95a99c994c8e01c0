"""Where the values of secrets are kept: the system's keyring if it works, else one file that only its owner can read.

Jobs hold names only. A value is read when an attempt is launched, and handed to its environment and nowhere else.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import re
import secrets as random_names
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol, cast

from ainfinity.core.config import Settings
from ainfinity.core.constants import APP_NAME, SECRET_NAME_PATTERN
from ainfinity.core.exceptions import FolderUnwritable, InvalidFile, NotFound, Unreachable, UsageError
from ainfinity.core.redact import learn

_MAX_LENGTH: Final = 32 * 1024
#: A secret becomes an environment variable of the trainer, so it may not take the place of one that steers the process.
_RESERVED: Final = re.compile(r"(?:AINFINITY_|SKYPILOT_|PYTHON|LD_|DYLD_).*|PATH|HOME|IFS|ENV|BASH_ENV|SHELL")


class Keyring(Protocol):
    """A place for values that the system protects. Each method raises Unreachable when it does not answer."""

    def get(self, name: str) -> str | None:
        """Return the value, or None."""
        ...

    def set(self, name: str, value: str) -> None:
        """Store the value."""
        ...

    def delete(self, name: str) -> None:
        """Forget the value."""
        ...


class SystemKeyring:
    """The `keyring` package, which speaks to macOS's keychain, the Secret Service or KWallet."""

    def __init__(self, package: Any) -> None:
        self._package = package

    def get(self, name: str) -> str | None:
        """Return the value, or None."""
        return self._ask("get_password", name)

    def set(self, name: str, value: str) -> None:
        """Store the value."""
        self._ask("set_password", name, value)

    def delete(self, name: str) -> None:
        """Forget the value."""
        self._ask("delete_password", name)

    def _ask(self, verb: str, *words: str) -> Any:
        try:
            return getattr(self._package, verb)(APP_NAME, *words)
        except self._package.errors.KeyringError as error:
            kind = type(error).__name__
            raise Unreachable(f"The keyring does not answer ({kind}).", hint="Unlock it and try again.") from None


def check_name(name: str) -> str:
    """Return `name` if a secret may be called so. Errors: UsageError, which does not repeat it: it may be a value."""
    if not re.fullmatch(SECRET_NAME_PATTERN, name):
        raise UsageError("The name of a secret is made of letters, digits and '_'.", hint="For example HF_TOKEN.")
    if _RESERVED.fullmatch(name):
        raise UsageError(
            f"A secret cannot be called {name}: that variable steers the trainer.", hint="Take another name."
        )
    return name


class SecretStore:
    """Secrets by name. The names, and without a keyring the values, are in `secrets.json` in `folder`."""

    def __init__(self, folder: Path, keyring: Keyring | None = None) -> None:
        self._folder = folder
        self._keyring = keyring
        self.path: Final = folder / "secrets.json"

    @property
    def place(self) -> str:
        """Where new values go, in words."""
        return "the system's keyring" if self._keyring else str(self.path)

    def names(self) -> list[str]:
        """Return the names of all secrets, sorted."""
        return sorted(self._read())

    def set(self, name: str, value: str) -> None:
        """Store a secret, replacing one of that name. Errors: UsageError, FolderUnwritable, Unreachable."""
        check_name(name)
        if not value or "\0" in value or len(value) > _MAX_LENGTH:
            raise UsageError("The value of a secret must be 1 to 32,768 characters, without NUL.", field=name)
        learn([value])
        with self._locked():
            entries = self._read()
            if self._keyring:
                self._keyring.set(name, value)
            entries[name] = None if self._keyring else value
            self._write(entries)

    def get(self, name: str) -> str:
        """Return the value of a secret. Errors: NotFound, Unreachable."""
        entries = self._read()
        if name not in entries:
            raise NotFound(
                f"There is no stored secret {name}.", hint=f"Store it with `ainfinity secrets set {name}`.", field=name
            )
        value = entries[name]
        if value is None and self._keyring:
            value = self._keyring.get(name)
        if value is None:
            raise Unreachable(
                f"The secret {name} is in a keyring that cannot be read from here.",
                hint=f"Unlock the keyring, or store it again with `ainfinity secrets set {name}`.",
                field=name,
            )
        learn([value])
        return value

    def resolve(self, names: Iterable[str]) -> dict[str, str]:
        """Return the values of several secrets. Errors: NotFound, Unreachable."""
        return {name: self.get(name) for name in names}

    def remove(self, name: str) -> None:
        """Forget a secret. Errors: NotFound, FolderUnwritable, Unreachable."""
        with self._locked():
            entries = self._read()
            if name not in entries:
                raise NotFound(f"There is no stored secret {name}.", hint="`ainfinity secrets list` shows their names.")
            if entries.pop(name) is None and self._keyring:
                self._keyring.delete(name)
            self._write(entries)

    def learn_all(self) -> None:
        """Have the redactor hide every value that can be read from the file; none is asked of the keyring.

        A file that cannot be read is no error here: whoever needs a secret of it is told.
        """
        with suppress(InvalidFile, Unreachable):
            learn(value for value in self._read().values() if value)

    def _read(self) -> dict[str, str | None]:
        try:
            entries: Any = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise Unreachable(f"{self.path} cannot be read: {error.strerror}.", hint="Check who owns it.") from None
        except ValueError:
            entries = None
        if not isinstance(entries, dict):
            raise InvalidFile(f"{self.path} is damaged.", hint="Remove it and store the secrets again.") from None
        return cast("dict[str, str | None]", entries)

    def _write(self, entries: dict[str, str | None]) -> None:
        aside = self.path.with_name(f".secrets-{random_names.token_hex(6)}")
        try:
            with os.fdopen(
                os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
            ) as stream:
                json.dump(entries, stream, indent=1, sort_keys=True)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(aside, self.path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise _unwritable(self._folder, error) from None

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Keep two processes from losing each other's secret."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self._folder / ".secrets.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unwritable(self._folder, error) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def open_secrets(settings: Settings) -> SecretStore:
    """Return this user's secrets."""
    return SecretStore(settings.config_dir, _usable_keyring())


def _usable_keyring() -> Keyring | None:
    """Return the `keyring` package if it is installed and has a real backend."""
    try:
        package: Any = importlib.import_module("keyring")  # optional
        importlib.import_module("keyring.errors")
    except ImportError:
        return None
    # The backends that stand for "none" and for plain text on disk have priorities of 0 and below 1.
    return SystemKeyring(package) if getattr(package.get_keyring(), "priority", 0) >= 1 else None


def _unwritable(folder: Path, error: OSError) -> FolderUnwritable:
    return FolderUnwritable(
        f"{folder} cannot be written: {error.strerror or error}.", hint="Set AINFINITY_CONFIG_DIR to a folder of yours."
    )
