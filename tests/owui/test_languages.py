"""The texts in five languages, and how places, plurals and times are said in each.

A table is one test, which names every wrong row at once.
"""

import json
import re
from collections.abc import Iterable

import pytest

from owui_pipeline.languages import TABLES
from owui_pipeline.words import (
    REASONS,
    Words,
    choose,
    ordinal,
    own_texts,
    placeholders,
    plural,
)

LANGUAGES = ("en", "fr", "it", "de", "es")
FITS = 80  # characters of a status that Open WebUI shows (StatusItem.svelte clamps it to one line)
ON_A_PHONE = 48
IN_A_BOX = {
    "away", "full", "paused", "key", "too_long", "gone", "kept",
    "ended_abandoned", "ended_draft_timeout", "ended_idle",
}  # fmt: skip
"""Said only where a chat is refused. All else, but the times, is a status at least sometimes."""
TIMES = ("minutes_", "hours_", "about_", "range", "less", "more", "when", "in_a_minute")
WHOLE_S = 59 * 60 + 59  # "59 min 59 s", as long as a time that passed gets
EVERY_TEXT = [(language, key) for language in LANGUAGES for key in TABLES[language]]


def is_a_time(key: str) -> bool:
    return key.startswith(TIMES)


def is_a_status(key: str) -> bool:
    return key not in IN_A_BOX and not is_a_time(key)


def filled(language: str, key: str) -> str:
    """The text at a place of four digits and with the longest of the ordinary times."""
    words = Words(language)
    line = words.line(1234, 2400, 5340)
    if key == "waiting_about":
        return line
    time = max(words.left(30), words.left(3000), key=len)
    place, waited, when = ordinal(1234, language), words.elapsed(WHOLE_S), words.when(2400)
    return words.say(key, line=line, place=place, waited=waited, when=when, time=time)


def none_of(wrong: Iterable[object]) -> None:
    """Fails with every one that there is."""
    found = [str(row) for row in wrong]
    assert not found, "\n".join(found)


def alike(said: Iterable[object], table: Iterable[object]) -> None:
    """Both have the same rows; fails with every row that differs."""
    pairs = zip(said, table, strict=True)
    none_of(f"{one}, not {other}" for one, other in pairs if one != other)


def test_there_are_five_languages() -> None:
    assert tuple(TABLES) == LANGUAGES


def test_a_language_says_everything_that_english_says() -> None:
    for language in LANGUAGES:
        assert list(TABLES[language]) == list(TABLES["en"]), language


def test_a_text_is_filled_with_the_same_as_in_english() -> None:
    none_of(
        (language, key, TABLES[language][key])
        for language, key in EVERY_TEXT
        if placeholders(TABLES[language][key]) != placeholders(TABLES["en"][key])
    )


def is_clean(text: str) -> bool:
    """One line, in print's apostrophes, without markup, and nothing that Open WebUI rewrites:
    replace_imports (0.12.4, utils/plugin.py) does so with these words wherever they stand."""
    markup = re.search(r"[*_`<>#\[\]]", re.sub(r"\{\w+\}", "", text))
    rewritten = re.search("from (utils|apps|main|config)", text)
    spaced = text == text.strip() and "  " not in text
    printed = text.replace("\u00a0", " ").isprintable() and "'" not in text
    return spaced and printed and not markup and not rewritten


def test_a_text_is_clean() -> None:
    texts = [(language, key, TABLES[language][key]) for language, key in EVERY_TEXT]
    none_of(row for row in texts if not is_clean(row[2]))


def test_a_text_ends_alike_in_each_language() -> None:
    keys = [key for key in TABLES["en"] if not is_a_time(key)]
    ends = {key: {TABLES[language][key][-1] in ".)" for language in LANGUAGES} for key in keys}
    none_of(key for key in keys if len(ends[key]) > 1)
    # What has its own box is made of whole sentences.
    none_of(key for key in keys if ends[key] != {True} and not is_a_status(key))


def is_spaced(language: str, text: str) -> bool:
    """Only French puts a space before a colon and its like."""
    before = "\u00a0" if language == "fr" else r"\w"
    all_of_them = re.findall("[:;!?]", text)
    right_ones = re.findall(f"{before}[:;!?](?= )", text)
    return len(all_of_them) == len(right_ones) and (language == "fr" or "\u00a0" not in text)


def test_only_french_puts_a_space_before_a_colon() -> None:
    texts = [(language, key, TABLES[language][key]) for language, key in EVERY_TEXT]
    none_of(row for row in texts if not is_spaced(row[0], row[2]))


def test_a_status_fits_the_one_line_that_open_webui_shows() -> None:
    statuses = [filled(language, key) for language, key in EVERY_TEXT if is_a_status(key)]
    none_of(text for text in statuses if len(text) > FITS)


def test_a_phone_shows_the_place_whatever_is_said_beside_it() -> None:
    """Open WebUI cuts a status there after some 48 characters (0.12.4, 390 pixels wide)."""
    for language in LANGUAGES:
        words = Words(language)
        place = words.line(12, None, None)
        line = words.line(12, 250, 540)
        said = [words.line(12, 250, 540, because) for because in REASONS]
        keys = ("may_be_passed", "kept_status", "over_then", "idle_then")
        said += [words.say(key, line=line) for key in keys]
        none_of(text for text in said if place not in text[:ON_A_PHONE])


# The place.


def test_ordinals() -> None:
    numbers = (1, 2, 3, 4, 11, 12, 13, 21, 22, 101, 111, 1013)
    said = "1st 2nd 3rd 4th 11th 12th 13th 21st 22nd 101st 111th 1013th"
    assert " ".join(ordinal(number, "en") for number in numbers) == said


def test_a_place_of_five_digits_is_written_in_groups() -> None:
    said = ["12,342nd", "12\u202f342", "12.342", "12.342", "12\u00a0342"]
    assert [ordinal(12_342, language) for language in LANGUAGES] == said


def test_a_place_is_a_bare_number_where_its_ordinal_would_need_a_gender() -> None:
    for language in LANGUAGES[1:]:
        for number in (1, 2, 8, 11, 21, 101, 1234):
            assert ordinal(number, language) == str(number), language


@pytest.mark.parametrize(
    ("language", "unplaced", "placed", "estimated"),
    [
        ("en", "You are in line", "You are 1st in line", "You are 5th in line, about 4 minutes"),
        ("fr", "Vous êtes dans la file", "Position 1 dans la file",
         "Position 5 dans la file, environ 4 minutes"),
        ("it", "Sei in coda", "Sei il numero 1 in coda",
         "Sei il numero 5 in coda, circa 4 minuti"),
        ("de", "Sie stehen in der Warteschlange", "Warteschlange: Platz 1",
         "Warteschlange: Platz 5, etwa 4 Minuten"),
        ("es", "Estás en la cola", "Puesto 1 en la cola", "Puesto 5 en la cola, unos 4 minutos"),
    ],
)  # fmt: skip
def test_what_is_not_known_of_a_place_is_not_guessed(
    language: str, unplaced: str, placed: str, estimated: str
) -> None:
    words = Words(language)
    assert words.line(None, 250, None) == unplaced
    assert words.line(1, None, None) == placed
    assert words.line(5, 250, 260) == estimated


def test_a_reason_stands_after_the_place_for_a_phone_cuts_the_line() -> None:
    for language in LANGUAGES:
        words = Words(language)
        line = words.line(5, 250, 500)
        for because in REASONS:
            assert words.line(5, 250, 500, because).startswith(f"{line}. "), language


def test_an_unknown_reason_is_passed_over() -> None:
    for because in (None, "", "admitted", "whatever comes later"):
        assert Words().line(5, None, None, because) == "You are 5th in line", because


@pytest.mark.parametrize(
    ("language", "over"),
    [
        ("en", "Your session is over. You are 5th in line, about 4 to 9 minutes"),
        ("fr", "Session terminée. Position 5 dans la file, environ 4 à 9 minutes"),
        ("it", "Sessione finita. Sei il numero 5 in coda, da 4 a 9 minuti"),
        ("de", "Sitzung abgelaufen. Warteschlange: Platz 5, etwa 4 bis 9 Minuten"),
        ("es", "Sesión terminada. Puesto 5 en la cola, de 4 a 9 minutos"),
    ],
)
def test_two_sentences_read_as_two(language: str, over: str) -> None:
    words = Words(language)
    assert words.say("over_then", line=words.line(5, 240, 540)) == over


# Times.


def test_plural_forms() -> None:
    for language in LANGUAGES:
        none = "one" if language == "fr" else "other"
        forms = [plural(language, n) for n in (0, 1, 2, 21, 101)]
        assert forms == [none, "one", "other", "other", "other"], language


WAITS: list[tuple[float, float | None, tuple[str, str, str, str, str]]] = [
    (0, None, ("less than a minute", "moins d’une minute", "meno di un minuto",
               "weniger als eine Minute", "menos de un minuto")),
    (60, None, ("about 1 minute", "environ 1 minute", "circa 1 minuto", "etwa 1 Minute",
                "cerca de 1 minuto")),
    (240, None, ("about 4 minutes", "environ 4 minutes", "circa 4 minuti", "etwa 4 Minuten",
                 "unos 4 minutos")),
    (20, 170, ("less than 3 minutes", "moins de 3 minutes", "meno di 3 minuti",
               "weniger als 3 Minuten", "menos de 3 minutos")),
    (240, 540, ("about 4 to 9 minutes", "environ 4 à 9 minutes", "da 4 a 9 minuti",
                "etwa 4 bis 9 Minuten", "de 4 a 9 minutos")),
    (3000, 7200, ("about 50 minutes to 2 hours", "environ 50 minutes à 2 heures",
                  "da 50 minuti a 2 ore", "etwa 50 Minuten bis 2 Stunden",
                  "de 50 minutos a 2 horas")),
    (5400, None, ("about 2 hours", "environ 2 heures", "circa 2 ore", "etwa 2 Stunden",
                  "unas 2 horas")),
    (4000, 10_000, ("about 1 to 3 hours", "environ 1 à 3 heures", "da 1 a 3 ore",
                    "etwa 1 bis 3 Stunden", "de 1 a 3 horas")),
    (20, 7000, ("less than 2 hours", "moins de 2 heures", "meno di 2 ore",
                "weniger als 2 Stunden", "menos de 2 horas")),
    (90_000, None, ("more than 24 hours", "plus de 24 heures", "più di 24 ore",
                    "mehr als 24 Stunden", "más de 24 horas")),
]  # fmt: skip


def test_times_to_come() -> None:
    every = [Words(language) for language in LANGUAGES]
    said = [
        (seconds, high_s, tuple(words.wait(seconds, high_s) for words in every))
        for seconds, high_s, _ in WAITS
    ]
    alike(said, WAITS)


def test_a_time_to_come_is_never_silly() -> None:
    table: list[tuple[float, float | None, str]] = [
        (-5, None, "less than a minute"),
        (0, 0, "less than a minute"),
        (59.9, 60, "less than a minute"),
        (50, 61, "less than 2 minutes"),
        (60, 80, "about 1 minute"),  # not "about 1 to 1 minutes"
        (89, 91, "about 1 minute"),
        (90, 100, "about 2 minutes"),
        (600, 300, "about 10 minutes"),  # a high value that is lower
        (1800, 1900, "about 30 minutes"),
        (1800, 2160, "about 30 to 36 minutes"),
        (5376, None, "about 90 minutes"),
        (5399, None, "about 90 minutes"),
        (5300, 5401, "about 88 minutes"),
        (4320, 5399, "about 72 to 90 minutes"),
        (3599, 5401, "about 60 minutes to 2 hours"),
        (3600, 5401, "about 1 to 2 hours"),
        (5401, 6600, "about 2 hours"),
        (3600, 1e12, "about 1 to 24 hours"),
        (20, float("inf"), "less than 24 hours"),
        (86_399, 1e12, "about 24 hours"),
        (1e12, 1e13, "more than 24 hours"),
        (float("inf"), None, "more than 24 hours"),
    ]
    said = [(seconds, high_s, Words().wait(seconds, high_s)) for seconds, high_s, _ in table]
    alike(said, table)


def test_all_times_to_come_read_well() -> None:
    range_of = re.compile(r"about (\d+)( minutes)? to (\d+) (minutes|hours)")
    words = Words()
    for seconds in range(0, 90_000, 47):
        for high_s in (None, seconds + 1, seconds * 1.3, seconds * 2, seconds + 5000, seconds * 40):
            said = words.wait(seconds, high_s)
            assert " 0 " not in said
            if found := range_of.fullmatch(said):
                assert int(found[1]) < int(found[3]) or (found[2] and found[4] == "hours")
                assert 1 <= int(found[1]) <= 90
            else:
                assert re.fullmatch(
                    r"(about 1 minute|about [2-9] (minute|hour)s|about \d\d (minute|hour)s|"
                    r"less than (a minute|([2-9]|\d\d) (minutes|hours))|more than 24 hours)",
                    said,
                )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, ("less than a minute", "moins d’une minute", "meno di un minuto",
              "weniger als eine Minute", "menos de un minuto")),
        (59.9, ("less than a minute", "moins d’une minute", "meno di un minuto",
                "weniger als eine Minute", "menos de un minuto")),
        (89.9, ("1 minute", "1 minute", "1 minuto", "1 Minute", "1 minuto")),
        (90, ("2 minutes", "2 minutes", "2 minuti", "2 Minuten", "2 minutos")),
        (298, ("5 minutes", "5 minutes", "5 minuti", "5 Minuten", "5 minutos")),
        (7169, ("119 minutes", "119 minutes", "119 minuti", "119 Minuten", "119 minutos")),
        (10_700, ("2 hours", "2 heures", "2 ore", "2 Stunden", "2 horas")),
    ],
)  # fmt: skip
def test_a_time_that_is_left_is_told_to_the_nearest_minute(
    seconds: float, said: tuple[str, ...]
) -> None:
    assert tuple(Words(language).left(seconds) for language in LANGUAGES) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ("in a minute", "dans une minute", "tra un minuto", "in einer Minute",
                "dentro de un minuto")),
        (89, ("in a minute", "dans une minute", "tra un minuto", "in einer Minute",
              "dentro de un minuto")),
        (90, ("in about 2 minutes", "dans environ 2 minutes", "tra circa 2 minuti",
              "in etwa 2 Minuten", "dentro de unos 2 minutos")),
    ],
)  # fmt: skip
def test_when_to_try_again(seconds: float | None, said: tuple[str, ...]) -> None:
    assert tuple(Words(language).when(seconds) for language in LANGUAGES) == said


def test_times_that_passed() -> None:
    table = [(0, "1 s"), (0.2, "1 s"), (42.4, "42 s"), (59.6, "1 min"), (60, "1 min"),
             (185, "3 min 5 s"), (3600, "1 h"), (3659, "1 h"), (4215, "1 h 10 min")]  # fmt: skip
    for language in LANGUAGES:
        alike([(seconds, Words(language).elapsed(seconds)) for seconds, _ in table], table)


# The choice.


def test_the_language_is_the_first_of_ours_that_is_wished_for() -> None:
    table: list[tuple[tuple[str | None, ...], str]] = [
        ((), "en"),
        ((None,), "en"),
        (("",), "en"),
        (("auto",), "en"),
        (("xx",), "en"),
        (("fr",), "fr"),
        (("fr-CA",), "fr"),
        (("fr_CA",), "fr"),
        (("IT-it",), "it"),
        (("de-CH-1996",), "de"),
        (("de;q=0.5, it",), "it"),
        (("zh-CN,de;q=0.7",), "de"),
        (("es;q=0.3,en;q=0.2",), "es"),
        (("fr;q=0,it;q=0.1",), "it"),
        (("it,fr",), "it"),  # equally wished for: the first
        (("de ; Q=0.4 , es;q=0.6",), "es"),
        (("*",), "en"),
        (("*;q=0",), "en"),
        (("*;q=0.9,fr;q=0.1",), "fr"),
        (("fr;q=high,it;q=0.1",), "it"),
        (("fr;q=..,de;q=2,es;q=-1,it;q=0.2",), "it"),
        ((",;,=,fr;;q=1, ,\x00,it",), "it"),
        (("english",), "en"),
        (("auto", None, "xx", "de", "fr"), "de"),
        (("zh", "", "es-MX"), "es"),
        (("," * 100_000 + "fr",), "en"),
    ]
    alike([(wishes, choose(*wishes)) for wishes, _ in table], table)


def test_a_language_that_is_not_ours_has_no_words() -> None:
    with pytest.raises(KeyError):
        Words("xx")


# An administrator's own texts.


@pytest.mark.parametrize("text", ["", "  \n", "{}"])
def test_without_own_texts_ours_are_said(text: str) -> None:
    assert own_texts(text) == {language: {} for language in LANGUAGES}


def test_own_texts_are_for_all_languages_or_for_one() -> None:
    own = own_texts(
        json.dumps(
            {"full": "Full.", "waiting": "No. {place}", "fr": {"waiting": "Nº {place} {{}}"}}
        )
    )
    assert own["it"] == {"full": "Full.", "waiting": "No. {place}"}
    assert Words("fr", own["fr"]).line(5, None, None) == "Nº 5 {}"
    assert Words("fr", own["fr"]).say("full", when="dans une minute") == "Full."
    assert Words("en", own["en"]).line(5, None, None) == "No. 5th"
    assert Words("en", own["en"]).line(5, 60, None) == "You are 5th in line, about 1 minute"


def test_plural_forms_may_be_own_texts_too() -> None:
    own = own_texts('{"de": {"about_minutes_other": "so {n} Minuten"}}')
    assert Words("de", own["de"]).wait(240) == "so 4 Minuten"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "texts: not JSON"),
        ("[" * 100_000, "texts: not JSON"),
        ('["waiting"]', "texts: not a JSON object"),
        ('"waiting"', "texts: not a JSON object"),
        ('{"wating": "x"}', "texts.wating: no such text or language"),
        ('{"pt": {"waiting": "x"}}', "texts.pt: no such text or language"),
        ('{"fr": {"wating": "x"}}', "texts.fr.wating: no such text"),
        ('{"fr": "x"}', "texts.fr: not an object of keys and texts"),
        ('{"fr": null}', "texts.fr: not an object of keys and texts"),
        ('{"waiting": 5}', "texts.waiting: not a text"),
        ('{"waiting": {"one": "x"}}', "texts.waiting: not a text"),
        ('{"de": {"waiting": null}}', "texts.de.waiting: not a text"),
        ('{"waiting": "{wait}"}', "texts.waiting: unknown {wait} (known: {place})"),
        ('{"waiting_about": "{n}"}', "texts.waiting_about: unknown {n} (known: {place} {wait})"),
        ('{"left": "{place}"}', "texts.left: unknown {place} (known: none)"),
        ('{"waiting": "{}"}', "texts.waiting: unknown {} (known: {place})"),
        ('{"waiting": "{0}"}', "texts.waiting: unknown {0}"),
        ('{"waiting": "{place.__class__}"}', "texts.waiting: unknown {place.__class__}"),
        ('{"waiting": "{place"}', "texts.waiting: expected '}'"),
        ('{"waiting": "place}"}', "texts.waiting: Single '}'"),
        ('{"waiting": "{place:>999999999}"}', "texts.waiting: write {place} with nothing else"),
        ('{"waiting": "{place!r}"}', "texts.waiting: write {place} with nothing else"),
    ],
)
def test_a_wrong_own_text_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        own_texts(text)
