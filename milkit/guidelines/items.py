"""What a checklist is made of: items, each told from the run, asked of people, or both."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from milkit.guidelines.answers import is_open
from milkit.guidelines.questions import QUESTIONS
from milkit.guidelines.sentences import Sentence
from milkit.guidelines.study import Study

Tell = Callable[[Study], list[Sentence]]


class Item(NamedTuple):
    """An item of a guideline, or a section of a model card.

    Attributes:
        number: In the guideline; empty in a model card.
        section: Under which it stands there.
        topic: What it asks for, in milkit's words.
        tells: What the run knows of it.
        asks: Questions that are always open to people.
        otherwise: A question that is asked only where the first of ``tells`` has nothing to say.
    """

    number: str
    section: str
    topic: str
    tells: tuple[Tell, ...] = ()
    asks: tuple[str, ...] = ()
    otherwise: str = ""


class Question(NamedTuple):
    """A question as a draft shows it: its key, the hint, and the answer, empty while it is open."""

    key: str
    hint: str
    answer: str

    @property
    def open(self) -> bool:
        """Whether something is left to write."""
        return is_open(self.answer)


class Answered(NamedTuple):
    """An item with what is known of it."""

    item: Item
    sentences: list[Sentence]
    questions: list[Question]

    @property
    def open(self) -> bool:
        """Whether a question of it is open."""
        return any(question.open for question in self.questions)


def answered(items: Sequence[Item], study: Study, answers: Mapping[str, str]) -> list[Answered]:
    """Every item with what the run tells and people answered."""
    found = []
    for item in items:
        parts = [tell(study) for tell in item.tells]
        asked = bool(item.otherwise) and not (parts and parts[0])
        keys = [*item.asks, *([item.otherwise] if asked else [])]
        sentences = [sentence for part in parts for sentence in part]
        found.append(Answered(item, sentences, [Question(key, QUESTIONS[key], answers[key]) for key in keys]))
    return found


def open_keys(items: Sequence[Answered]) -> list[str]:
    """Keys of the open questions, each once, in the order of the items."""
    return list(dict.fromkeys(q.key for item in items for q in item.questions if q.open))
