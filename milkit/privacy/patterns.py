"""Names, dates of birth and record numbers in a piece of text, and how they are shown without being told.

What is looked for:

* a date of birth: a date behind a word such as ``geb.`` or ``DOB``, in ISO (1957-03-02), German (2.3.1957), American
  (3/2/1957) or written form (2. März 1957), with eight digits in a row, or with a year of two digits;
* a date behind a word that may be a name: ``Mueller_1957-03-02``;
* any whole date, where text is no prose: in a file's name, a cell of a table, the tag of an image; but no time of day
  (2026-11-21T12:00), as machines write them;
* a record number: five digits or more behind MRN, Fallnummer, Pat.-Nr. and the like, and what is built like a German
  insurance number; where a folder or a patient is called so, seven digits and nothing else;
* a name: behind a title or a label (``Frau …``, ``Name: …``), and where text is no prose, one that
  ``milkit.privacy.names`` lists.

A pattern proves nothing. A name that is on no list and has no date or title beside it is not seen, nor is a date of
which month or day is missing, a number without a word that says what it is, or anything written in pixels. What is
found may be harmless. ``tests/test_privacy.py`` measures how many generated names and dates are seen.
"""

import datetime
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from milkit.privacy.names import GIVEN, LISTED, SURNAMES, words

Kind = Literal["name", "date of birth", "name and date", "date", "record number", "source id"]

_MONTHS = {
    month: number
    for number, names in enumerate(
        [
            "jan january januar", "feb february februar", "mar march mrz maerz märz", "apr april", "may mai",
            "jun june juni", "jul july juli", "aug august", "sep sept september", "oct october okt oktober",
            "nov november", "dec december dez dezember",
        ],
        start=1,
    )
    for month in names.split()
}  # fmt: skip
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_DATE = re.compile(
    r"(?<!\d)(?<!\d[.:])(?:"
    r"(?P<y1>(?:19|20)\d\d)(?P<s1>[-_./])(?P<m1>\d{1,2})(?P=s1)(?P<d1>\d{1,2})"
    r"|(?P<a2>\d{1,2})(?P<s2>[-_./]|\. )(?P<b2>\d{1,2})(?P=s2)(?P<y2>(?:19|20)\d\d)"
    rf"|(?P<d3>\d{{1,2}})(?:\.|st|nd|rd|th)?[ _-]?(?P<m3>{_MONTH})\.?[ ,_-]{{1,2}}(?P<y3>(?:19|20)\d\d)"
    rf"|(?P<m4>{_MONTH})\.? (?P<d4>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<y4>(?:19|20)\d\d)"
    r")(?!\d)(?!\.\d)",
    re.IGNORECASE,
)
_COMPACT = re.compile(
    r"(?<!\d)(?:(?P<y>(?:19|20)\d\d)(?P<m>\d\d)(?P<d>\d\d)|(?P<d2>\d\d)(?P<m2>\d\d)(?P<y2>(?:19|20)\d\d)"
    r"|(?P<d3>\d{1,2})[./-](?P<m3>\d{1,2})[./-](?P<y3>\d\d))(?!\d)"
)
"""Forms that are dates only where a word says so."""
_MAY_BE_DATED = re.compile(r"(?:19|20)\d\d|\d[./-]\d\d?[./-]\d\d")
_CLOCK = re.compile(r"[T _]\d\d[:.]?\d\d")
_BIRTH = re.compile(
    r"(?<![^\W_])(?:geb(?:oren|urtsdatum|urtstag|[._ -]?dat(?:um)?)?|dob|d\.o\.b\.?|born|birth(?:day|[ _-]?date)?|"
    r"date[ _-]of[ _-]birth|birthdate|n[ée]e? le)(?![^\W\d_])",
    re.IGNORECASE,
)
_RECORD = re.compile(
    r"(?<![^\W_])(?:mrn|medical[ _-]?record(?:[ _-]?(?:no|nr|num|number|id))?|"
    r"(?:patient(?:en)?|pat|fall|case|aufnahme|hospital|versicher(?:ten|ungs)|insurance|accession|krankenkassen?)"
    r"[ ._-]*(?:no|nr|num|nummer|number|id)|piz|kis|ssn|nhs(?:[ _-]?(?:no|number))?)(?![^\W\d_])",
    re.IGNORECASE,
)
_FIVE = re.compile(r"\d(?:[ /-]?\d){4}")
_NUMBER = re.compile(r"[\W_]{0,8}(?P<number>[A-Za-z]{0,3}[-_/]?\d(?:[ /-]?\d){4,})")
_INSURED = re.compile(r"(?<![A-Za-z0-9])[A-TV-Z]\d{9}(?![A-Za-z0-9])")
_SEVEN = re.compile(r"\d{7,}")
_TITLED = re.compile(
    r"(?<![^\W_])(?:(?i:herrn?|frau|mrs?|ms|pat(?:ient(?:in)?)?[ _]?name|(?:sur|last|first|family|vor|nach)[ _-]?name)"
    r"\.?[ :=_-]{1,3}|(?i:name)[ ]?[:=][ ]?|(?i:patient(?:in)?)[:,] )"
    r"(?P<name>[^\W\d_][^\W\d_]+(?:[ ,_-]+[A-ZÄÖÜ][^\W\d_]+)*)"
)
_WORDS_BEFORE = re.compile(r"(?P<word>[^\W\d_]{3,})[ ,._-]{1,3}$")
_WORD = re.compile(r"[^\W\d_]+")
_UMLAUTS = {ord(letter): plain for letter, plain in zip("äöüßéèáó", ("ae", "oe", "ue", "ss", *"eeao"), strict=True)}
_CAMEL = re.compile(r"(?<=[a-zäöüß])(?=[A-ZÄÖÜ])")
_ORDINARY = words(
    """
    image images img cell cells slide slides smear smears scan scanned scans batch run date dated time created updated
    version made written from until since the and day month year export report series patient patients blood bone marrow
    sample samples case cohort study file files folder data backup copy old new field fields abmil monday tuesday
    wednesday thursday friday saturday sunday montag dienstag mittwoch donnerstag freitag samstag sonntag accessed
    """
)
"""Words before a date that are no names."""


class Found(NamedTuple):
    """Something in a text that may tell whose it is: of which kind, and where."""

    kind: Kind
    start: int
    end: int


def find(text: str, *, prose: bool = False, label: str = "", is_id: bool = False) -> list[Found]:
    """What may identify a person, in the order of the text, without overlaps.

    Args:
        text: To look at.
        prose: Whether it is running text, in which a date or a name alone means little.
        label: What the text stands under: the title of a column, the name of a tag or a key.
        is_id: Whether it is how a patient, a sample or a folder is called.
    """
    found = [*_dates(text, label, prose=prose), *_records(text, label, is_id=is_id), *_names(text, label, prose=prose)]
    found.sort(key=lambda one: (one.start, -one.end))
    kept = list[Found]()
    for one in found:
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
    return kept


def mask(text: str) -> str:
    """The shape of a text, which tells where to look and not what is there: ``*******_####-##-##``."""
    return "".join("#" if letter.isdigit() else "*" if letter.isalpha() else letter for letter in text)


def masked(text: str, found: list[Found]) -> str:
    """A text in which what was found has become its shape."""
    for one in reversed(found):
        text = text[: one.start] + mask(text[one.start : one.end]) + text[one.end :]
    return text


def _dates(text: str, label: str, *, prose: bool) -> Iterator[Found]:
    if not _MAY_BE_DATED.search(text):
        return
    labelled = bool(_BIRTH.search(label))
    births = [match.end() for match in _BIRTH.finditer(text)]
    for form in (_DATE, _COMPACT):
        for match in form.finditer(text):
            if not _is_date(match):
                continue
            start, end = match.span()
            if labelled or text[start - 1 : start] == "*" or _follows(text, births, start):
                yield Found("date of birth", start, end)
                continue
            before = _WORDS_BEFORE.search(text, max(0, start - 40), start)
            if before and _may_be_a_name(before["word"], listed=prose, capital=form is _COMPACT):
                yield Found("name and date", before.start("word"), end)
            elif form is _DATE and not prose and not _CLOCK.match(text, end):
                yield Found("date", start, end)


def _is_date(match: re.Match[str]) -> bool:
    """Whether the numbers are a day that somebody may have been born on, in one of the orders that are in use."""
    parts = {key[0]: value.lower() for key, value in match.groupdict().items() if value and key[0] != "s"}
    of = {name: _MONTHS[value] if value in _MONTHS else int(value) for name, value in parts.items()}
    year = of["y"] + (1900 if of["y"] < 100 else 0)
    orders = [(of["m"], of["d"])] if "m" in of else [(of["b"], of["a"]), (of["a"], of["b"])]
    orders += [(of["d"], of["m"])] if "m" in of and of["y"] < 100 else []  # American, with two digits
    past = 1900 <= year <= datetime.datetime.now(tz=datetime.UTC).year
    return past and any(_exists(year, *order) for order in orders)


def _exists(year: int, month: int, day: int) -> bool:
    try:
        datetime.date(year, month, day)
    except ValueError:
        return False
    return True


def _follows(text: str, births: list[int], start: int) -> bool:
    """Whether one of the words for a birth ends shortly before, with no number between."""
    return any(0 <= start - birth <= 12 and not re.search(r"\d", text[birth:start]) for birth in births)


def _may_be_a_name(word: str, *, listed: bool, capital: bool) -> bool:
    """A word before a date.

    Args:
        word: What stands there.
        listed: Whether only the names that are listed count, as where dates are common.
        capital: Whether only those in capitals and small letters do, as where the date is but eight digits.
    """
    if listed or (capital and not word.istitle()):
        return _is_listed(word)
    return word.lower() not in _ORDINARY and word.lower() not in _MONTHS and not _BIRTH.fullmatch(word)


def _records(text: str, label: str, *, is_id: bool) -> Iterator[Found]:
    if not _FIVE.search(text):
        return
    starts = [match.end() for match in _RECORD.finditer(text)]
    starts += [0] if _RECORD.fullmatch(label.strip()) and not _is_an_id_column(label) else []
    for start in starts:
        if match := _NUMBER.match(text, start):
            yield Found("record number", *match.span("number"))
    for match in _INSURED.finditer(text):
        yield Found("record number", *match.span())
    if is_id and _SEVEN.fullmatch(text) and not ((date := _COMPACT.fullmatch(text)) and _is_date(date)):
        yield Found("record number", 0, len(text))


def _is_an_id_column(label: str) -> bool:
    """Every store has a patient_id; what stands there counts by its own looks."""
    return label.strip().lower() == "patient_id"


def _names(text: str, label: str, *, prose: bool) -> Iterator[Found]:
    for match in _TITLED.finditer(text):
        if match["name"][0].isupper() and _first(match["name"]) not in _ORDINARY:
            yield Found("name", *match.span("name"))
    if _TITLED.match(f"{label}: Someone") and re.search(r"[a-zäöü]{2}", text) and text[:1].isupper():
        yield Found("name", 0, len(text))
    if prose:
        yield from _pairs(text)
        return
    for match in _WORD.finditer(text):
        start = match.start()
        for part in _CAMEL.split(match.group()):
            if _is_listed(part):
                yield Found("name", start, start + len(part))
            start += len(part)


def _pairs(text: str) -> Iterator[Found]:
    """In prose, a given name and a surname beside each other: a single one may be an author's, or a method's."""
    for match in re.finditer(r"([A-ZÄÖÜ][^\W\d_]{3,})(?:, ?| |_)([A-ZÄÖÜ][^\W\d_]{3,})", text):
        first, second = (_plain(part) for part in match.groups())
        if (first in GIVEN and second in SURNAMES) or (first in SURNAMES and second in GIVEN):
            yield Found("name", *match.span())


def _first(name: str) -> str:
    return re.split(r"[ ,_-]", name)[0].lower()


def _is_listed(word: str) -> bool:
    return len(word) > 3 and _plain(word) in LISTED


def _plain(word: str) -> str:
    return word.lower().translate(_UMLAUTS)
