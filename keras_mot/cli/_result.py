"""What a command returns: the same result for readers and for programs."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Result:
    """Text for the terminal, and the same as JSON values; the exit code of the command."""

    text: str
    data: dict[str, Any]
    code: int = 0
