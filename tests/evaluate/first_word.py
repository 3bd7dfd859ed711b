"""A judge whose verdicts the replies themselves give."""

from collections.abc import Sequence

from bdpo.evaluate.judges import Judge, Verdict


class FirstWord(Judge):
    """A judge that takes the first word of the reply for the label."""

    name, version = "first-word", "1"

    def __init__(self) -> None:
        self.judged: list[str] = []

    def __call__(self, prompts: Sequence[str], replies: Sequence[str]) -> list[Verdict]:
        self.judged += replies
        return [Verdict(reply.split()[0], self.name, self.version, reply, reason="its first word") for reply in replies]
