"""Whose run it is: programs that a folder names are run where this user's `ppvi fit` wrote it, or where `--trust` is said.

A folder may come from anybody, and `config.json` may name any Python file, one in the folder itself, say. What it names is
therefore sealed with a key that this user alone can read (HMAC-SHA256, Bellare, Canetti and Krawczyk 1996), which is outside of
the folder: who cannot read the key cannot write a folder that is taken for one of this user's. Programs that have changed since
are refused, too, for the rest of the folder is of what they were.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppvi._doors import listed
from ppvi.cli.failures import InputError
from ppvi.cli.options import Question
from ppvi.cli.sources import is_source, split

SEALED = ("question", "directory", "programs")
"""What of a configuration says which code is run, and on what."""


def programs_of(question: Question) -> dict[str, str]:
    """The Python files that a question names, and digests of them."""
    named = [x for x in (question.program, question.guide, question.objective) if x]
    files = [split(x, "")[0] for x in named if is_source(x) or x == question.program]
    return {str(file): digest(file) for file in files if file.is_file()}


def digest(file: str | Path) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def seal(config: Mapping[str, Any]) -> str | None:
    """What only this user can have written beside such a configuration; None where there is no place for a key."""
    key = _key()
    if key is None:
        return None
    said = json.dumps([config.get(name) for name in SEALED], sort_keys=True)
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()


def refuse_foreign(folder: Path, config: Mapping[str, Any], question: Question) -> None:
    """Before anything that `question` names is run, which is that of the folder, with its files as they are found from here.

    **Raises** `InputError` where the folder is not of this user, or a program is not as it was.
    """
    now = programs_of(question)
    files = listed(sorted(now)) or question.program
    own = seal(config)
    if own is None or not hmac.compare_digest(own.encode(), str(config.get("seal")).encode()):
        raise InputError(
            f"{folder} was not written by ppvi fit as this user on this machine, and going on with it runs the code of "
            f"{files}: look at that, and say --trust to run it, from now on."
        )
    if changed := [file for file, there in now.items() if there not in config["programs"].values()]:
        raise InputError(
            f"{listed(changed)} changed since the run in {folder} began: put it back, begin anew by ppvi fit, or say --trust "
            f"to run it as it is."
        )


def _key() -> bytes | None:
    """32 bytes in a file of the user's, which is made when it is first needed."""
    path = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "ppvi" / "key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            contextlib.suppress(FileExistsError),
            os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
        ):
            file.write(secrets.token_bytes(32))
        found = path.read_bytes()
    except (OSError, RuntimeError):
        return None
    return found if len(found) == 32 else None
