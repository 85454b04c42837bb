"""Mails and their replies for the smart reply task: synthetic ones, and those of a user's file."""

from __future__ import annotations

import json
import random
import re

from unrolled.data.lines import open_lines
from unrolled.errors import DataError

_WORDS = {
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "time": ("nine", "ten", "eleven", "noon", "two", "three", "half past four", "five"),
    "when": ("today", "tomorrow", "tonight", "this afternoon", "next week"),
    "paper": ("report", "slides", "contract", "invoice", "budget", "draft", "agenda", "minutes", "photos"),
    "place": ("Berlin", "Paris", "London", "Rome", "Vienna", "Boston", "the office", "the station"),
    "meal": ("lunch", "dinner", "coffee", "breakfast"),
    "event": ("party", "wedding", "trip", "conference", "workshop", "concert"),
    "name": ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jonas"),
}

#: Topics: sentences of mails, and the replies that fit them. A word of the mail may appear again in the reply.
_TOPICS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        (
            "Lets do {day}.",
            "Let's meet on {day}.",
            "How about {day}?",
            "Does {day} work for you?",
            "Can we move our meeting to {day}?",
            "Would {day} at {time} suit you?",
            "I could come by on {day} at {time}.",
        ),
        (
            "{day} works for me.",
            "{day} is good.",
            "See you on {day}.",
            "Sorry, I am busy on {day}.",
            "Sounds good to me.",
        ),
    ),
    (
        (
            "{day} or {day2}?",
            "Is {day} or {day2} better for you?",
            "I am free on {day} and {day2}.",
            "Shall we say {day} or {day2}?",
        ),
        ("Either day works for me.", "{day} works for me.", "{day2} is better for me.", "Sorry, I am away both days."),
    ),
    (
        (
            "Can you call me {when}?",
            "Please give me a ring {when}.",
            "Do you have time for a call {when}?",
            "Could we talk {when}?",
        ),
        ("I will call you {when}.", "Sure, what time?", "Sorry, I have no time {when}.", "Yes, call me any time."),
    ),
    (
        (
            "Could you send me the {paper}?",
            "Please send the {paper}.",
            "I need the {paper} {when}.",
            "Do you have the {paper}?",
            "Where can I find the {paper}?",
        ),
        (
            "I will send the {paper} {when}.",
            "Here you are.",
            "I have sent the {paper}.",
            "Sorry, I don't have the {paper}.",
        ),
    ),
    (
        (
            "Have you read the {paper}?",
            "What do you think of the {paper}?",
            "Did you look at the {paper}?",
            "Any comments on the {paper}?",
        ),
        ("The {paper} looks great.", "Not yet, I will read it {when}.", "I have a few comments.", "Yes, well done."),
    ),
    (
        (
            "Thanks for the {paper}!",
            "Thank you so much for your help.",
            "Thanks a lot for coming to the {event}.",
            "That was very kind of you, thank you.",
        ),
        ("You are welcome.", "No problem.", "Happy to help.", "Any time."),
    ),
    (
        ("I am running late.", "Sorry, my train is late.", "I will be there a little later.", "I am stuck in traffic."),
        ("No problem.", "Don't worry, take your time.", "See you soon.", "Thanks for telling me."),
    ),
    (
        (
            "Do you want to get {meal} {when}?",
            "Shall we have {meal} {when}?",
            "Would you like to join us for {meal}?",
            "{meal} {when}?",
        ),
        ("I would love to.", "{meal} sounds great.", "Sorry, I have other plans.", "Yes, where?"),
    ),
    (
        (
            "When do you arrive in {place}?",
            "When will you be at {place}?",
            "Are you coming to {place}?",
            "What day do you get to {place}?",
        ),
        ("I will be there on {day}.", "I am already there.", "I don't know yet.", "I will let you know."),
    ),
    (
        ("How was the {event}?", "Did you enjoy the {event}?", "Tell me about the {event}!", "Was the {event} good?"),
        ("The {event} was great.", "It was fun, thanks.", "Sorry, I missed it.", "I will tell you when we meet."),
    ),
    (
        (
            "I am sick today.",
            "I have a cold and will stay at home.",
            "I don't feel well.",
            "I have to see a doctor {when}.",
        ),
        ("Get well soon.", "I am sorry to hear that.", "Take care.", "Let me know if you need anything."),
    ),
    (
        ("I got the job!", "We won!", "I passed my exam.", "Our baby was born yesterday.", "The {paper} was accepted."),
        ("Congratulations!", "That is great news.", "I am so happy for you.", "Well done!"),
    ),
)
_GREETINGS = ("", "", "", "Hi, ", "Hello {name}, ", "Hi {name}, ", "Dear {name}, ")
_CLOSINGS = ("", "", "", " Thanks!", " Best, {name}", " {name}")


def synthetic_mails(count: int = 6000, seed: int = 1) -> tuple[list[str], list[str]]:
    """Draw synthetic messages and their replies: sentences of `_TOPICS` with random words in their placeholders."""
    generator = random.Random(seed)
    messages, replies = [], []
    for _ in range(count):
        mails, answers = generator.choice(_TOPICS)
        words = {place: generator.choice(options) for place, options in _WORDS.items()}
        words["day2"] = generator.choice([day for day in _WORDS["day"] if day != words["day"]])
        greeting, closing = generator.choice(_GREETINGS), generator.choice(_CLOSINGS)
        mail = generator.choice(mails).format(**words)
        message = greeting.format(**words) + mail[0].upper() + mail[1:]
        words["name"] = generator.choice(_WORDS["name"])
        messages.append(message + closing.format(**words))
        reply = generator.choice(answers).format(**words)
        replies.append(reply[0].upper() + reply[1:])
    return messages, replies


def read_mails(name: str) -> tuple[list[str], list[str]]:
    """Read messages and replies from a file: JSON lines with "message" and "reply", or two columns separated by a tab.

    Raises DataError, with the line number, if a line is neither.
    """
    messages, replies = [], []
    for number, line in enumerate(open_lines(name), 1):
        if line.strip():
            message, reply = _read_mail(line, f"{name}: line {number:,}")
            messages.append(message)
            replies.append(reply)
    return messages, replies


def _read_mail(line: str, where: str) -> tuple[str, str]:
    if line.lstrip().startswith("{"):
        try:
            stored = json.loads(line)
            pair = stored["message"], stored["reply"]
            "".join(part for part in pair if isinstance(part, str)).encode()
        except (ValueError, KeyError, RecursionError) as error:
            raise DataError(f'{where} is not JSON with "message" and "reply" ({error})') from error
        if not all(isinstance(part, str) for part in pair):
            raise DataError(f'{where}: "message" and "reply" must be text')
        return pair
    columns = line.split("\t")
    if len(columns) != 2:
        raise DataError(f"{where} has {len(columns) - 1} tabs: write a message, one tab and a reply, or JSON")
    return columns[0], columns[1]


def overlap(one: str, other: str) -> float:
    """Return the share of words that two texts have in common, among all words that either of them has."""
    first, second = (set(re.findall(r"\w+", text.lower())) for text in (one, other))
    return len(first & second) / max(1, len(first | second))
