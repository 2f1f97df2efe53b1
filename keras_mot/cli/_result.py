"""What a command returns: the same result for readers and for programs."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Result:
    """Text for the terminal, the same as JSON values, and the exit code of a command that has found something bad."""

    text: str
    data: dict[str, Any]
    code: int = 0
