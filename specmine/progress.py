"""How a long computation tells its caller where it stands; the library itself never prints."""

from typing import Protocol


class Progress(Protocol):
    """Told of each stage in turn: start, any number of advances, finish."""

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage begins; total counts its steps where that is known."""

    def advance(self, steps: int = 1, text: str = "") -> None:
        """Steps of the running stage are done; text says what the last one gave."""

    def finish(self, text: str = "") -> None:
        """The running stage is done; text says what it gave."""


class Silent:
    """The progress that nobody watches."""

    def start(self, stage: str, total: int | None = None) -> None:
        pass

    def advance(self, steps: int = 1, text: str = "") -> None:
        pass

    def finish(self, text: str = "") -> None:
        pass


SILENT: Progress = Silent()
