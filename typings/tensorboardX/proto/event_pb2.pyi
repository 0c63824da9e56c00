"""The messages that `tensorboardX` makes at import time, out of a checker's sight."""

from typing import Any

class _Message:
    def __init__(self, **fields: Any) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

class Event(_Message): ...

class SessionLog(_Message):
    START: int
