"""What the trainings of a selection may take together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from facedan_cli.errors import UsageError
from facedan_cli.training.adapt_job import AdaptJob


@dataclass
class Budget:
    """What trainings may take together, in steps ("600") or minutes ("10m").

    Minutes are held by what a step took so far: the first training is always made.

    Args:
        text: the value of --budget; None: no bound.

    Raises:
        UsageError: it is neither.
    """

    text: str | None
    steps: int = 0
    seconds: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        number = (self.text or "0").removesuffix("m")
        if not number.isdecimal():
            raise UsageError(f"--budget cannot be '{self.text}'", "give steps, as in 600, or minutes, as in 10m")

    def allows(self, job: AdaptJob) -> bool:
        """Whether a training fits in what is left."""
        if self.text is None:
            return True
        steps = int(job.config.iterations or 0)
        if not self.text.endswith("m"):
            return self.steps + steps <= int(self.text)
        limit = 60 * int(self.text.removesuffix("m"))
        return limit > 0 and self.seconds + steps * self.seconds / max(1, self.steps) <= limit

    @contextmanager
    def spending(self, job: AdaptJob) -> Iterator[None]:
        """Count the steps and the time of a training, unless its run is finished already."""
        steps, start = 0 if job.run.finished else int(job.config.iterations or 0), time.monotonic()
        yield
        if steps:
            self.steps += steps
            self.seconds += time.monotonic() - start
