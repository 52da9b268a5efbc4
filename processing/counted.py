"""Numbers of things in messages."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number and what it counts: "1 bar", "2 bars"."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"
