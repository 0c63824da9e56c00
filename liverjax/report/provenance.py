"""What a report says of its origin beside what its author tells: the command that is running, as it was typed."""

from contextvars import ContextVar

#: The words of the command that is running, quoted for a shell; empty if Python was called.
COMMAND: ContextVar[str] = ContextVar("COMMAND", default="")
