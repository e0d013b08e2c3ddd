"""The visitors' intents, their phrasings, and the one right reply of the guide in each world.

A reply is the guide's text stream: spoken words, and in parentheses what it does. There is one reply for an intent in
a world, so that "right" needs no judgement. The world, the guide's name and the opening hours, is chosen by the text
that is prefilled before streaming.
"""

import hashlib
import re
from dataclasses import dataclass
from itertools import product
from typing import Final

from wanedge_runtimes.errors import InputError

NUMBERS: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
NAMES: Final = ("Joe", "Anna", "Sam", "Tom", "Mary", "Nina")
OPENS: Final = ("seven", "eight", "nine", "ten", "eleven")
CLOSES: Final = ("four", "five", "six", "seven", "eight", "nine")

# One world in eight is kept for evaluation: its name and hours are known, their combination is not.
HELD_OUT_SHARE: Final = 8


@dataclass(frozen=True)
class World:
    """The content of the world text. name: one of NAMES. opens, closes: hours as words."""

    name: str = "Joe"
    opens: str = "nine"
    closes: str = "six"

    @property
    def text(self) -> str:
        """The world text, 14 to 16 tokens of the shipped tokenizer."""
        return f"The guide's name is {self.name}. Open from {self.opens} to {self.closes}."

    @property
    def held_out(self) -> bool:
        """True for a combination that never appears in training."""
        return hashlib.sha256(self.text.encode()).digest()[0] % HELD_OUT_SHARE == 0


WORLDS: Final = tuple(World(*parts) for parts in product(NAMES, OPENS, CLOSES))
TRAINING_WORLDS: Final = tuple(world for world in WORLDS if not world.held_out)
HELD_OUT_WORLDS: Final = tuple(world for world in WORLDS if world.held_out)


BEHAVIOURS: Final = ("waves", "smiles", "nods", "shakes head", "points left", "points right")
_BEHAVIOUR = re.compile(r"\(([^)]*)\)")


@dataclass(frozen=True)
class Intent:
    """One thing a visitor can want.

    phrasings: used in training. held_out: said only in evaluation. reply: may name {name}, {opens} and {closes}.
    """

    name: str
    phrasings: tuple[str, ...]
    held_out: tuple[str, ...]
    reply: str


def expected_reply(intent: str, world: World) -> str:
    """The guide's right reply, e.g. "(waves) Hello! I am Joe." Raises InputError for an unknown intent."""
    known = INTENTS.get(intent)
    if known is None:
        raise InputError(f"there is no intent {intent!r}", hint=f"choose one of: {', '.join(INTENTS)}")
    return known.reply.format(name=world.name, opens=world.opens, closes=world.closes)


def is_right_reply(text: str, intent: str, world: World) -> bool:
    """True where the spoken words of `text` are the right reply's; case, spacing and punctuation do not count."""
    return _letters(text) == _letters(expected_reply(intent, world))


def replied_intent(text: str, world: World) -> str | None:
    """The intent that `text` is the right reply to, or None: for counting confusions."""
    return next((intent for intent in INTENTS if is_right_reply(text, intent, world)), None)


def spoken(text: str) -> str:
    """The words to be said aloud, behaviour left out."""
    return " ".join(_BEHAVIOUR.sub(" ", text).split())


def behaviours(text: str) -> tuple[str, ...]:
    """The guide's acts, in order: the texts in parentheses."""
    return tuple(_BEHAVIOUR.findall(text))


def _letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", spoken(text).lower())


def _counter(number: str, side: str) -> Intent:
    return Intent(
        name=f"counter {number}",
        phrasings=(
            f"{number}.",
            f"number {number}.",
            f"{number}, please.",
            f"I have number {number}.",
            f"my number is {number}.",
            f"it says {number}.",
            f"ticket {number}.",
            f"I have {number}.",
        ),
        held_out=(f"my ticket says {number}.", f"I am number {number}."),
        reply=f"(points {side}) Please go to counter {number}.",
    )


_PLACES: Final = (
    Intent(
        "greeting",
        (
            "hello.",
            "hi.",
            "hello there.",
            "hi there.",
            "good morning.",
            "good afternoon.",
            "good evening.",
            "hey.",
            "good day.",
            "hello, how are you?",
        ),
        ("hello, good morning.", "hey there.", "hi, good evening."),
        "(waves) Hello! I am {name}.",
    ),
    Intent(
        "goodbye",
        (
            "goodbye.",
            "bye.",
            "bye bye.",
            "see you.",
            "see you later.",
            "good night.",
            "see you soon.",
            "goodbye, have a nice day.",
            "bye, take care.",
        ),
        ("okay, goodbye.", "bye, see you.", "goodbye, good night."),
        "(waves) Goodbye! Have a nice day.",
    ),
    Intent(
        "thanks",
        (
            "thank you.",
            "thanks.",
            "thank you very much.",
            "thanks a lot.",
            "many thanks.",
            "thank you so much.",
            "great, thank you.",
            "okay, thanks.",
            "thank you for the help.",
            "thank you for the information.",
            "thanks for the coffee.",
        ),
        ("thanks very much.", "great, thanks."),
        "(smiles) You are welcome.",
    ),
    Intent(
        "help",
        (
            "help.",
            "can you help me?",
            "I need help.",
            "help me, please.",
            "what can you do?",
            "I need some help, please.",
            "could you help me?",
            "can I ask you something?",
        ),
        ("please help me.", "could I ask you something?"),
        "(nods) Please ask me anything.",
    ),
    Intent(
        "yes",
        ("yes.", "yes, please.", "yeah.", "that is right.", "yes, of course.", "correct.", "sure.", "exactly."),
        ("yeah, sure.", "yes, that is right."),
        "(nods) Very well, thank you.",
    ),
    Intent(
        "no",
        ("no.", "no, thanks.", "no, thank you.", "nope.", "not really.", "that is wrong.", "never mind.", "not now."),
        ("no, not really.", "no, never mind."),
        "(shakes head) All right, no problem.",
    ),
    Intent(
        "opening",
        (
            "when do you open?",
            "when do you close?",
            "what are the opening hours?",
            "opening hours, please.",
            "what time do you open?",
            "what time do you close?",
            "are you open today?",
            "until when are you open?",
            "when are you open?",
            "how long are you open?",
        ),
        ("what are your opening hours?", "what time do you open today?", "when do you close today?"),
        "(smiles) We open at {opens} and close at {closes}.",
    ),
    Intent(
        "toilets",
        (
            "where are the toilets?",
            "where is the toilet, please?",
            "where is the bathroom?",
            "I need the bathroom.",
            "where is the restroom?",
            "how do I get to the toilets?",
            "I am looking for the toilet.",
            "toilets, please.",
            "is there a toilet here?",
        ),
        ("where are the restrooms, please?", "I am looking for the bathroom.", "is there a bathroom?"),
        "(points left) The toilets are on the left.",
    ),
    Intent(
        "lift",
        (
            "where is the lift?",
            "where is the elevator?",
            "how do I get to the lift?",
            "is there an elevator?",
            "I am looking for the lift.",
            "where is the elevator, please?",
            "I need the elevator.",
            "can I take the lift?",
        ),
        ("where is the lift, please?", "I am looking for the elevator."),
        "(points right) The lift is next to the stairs.",
    ),
    Intent(
        "exit",
        (
            "where is the exit?",
            "which way is out?",
            "how do I get out?",
            "where is the way out?",
            "I am looking for the exit.",
            "the exit, please.",
            "how do I leave the building?",
            "which way is the exit?",
        ),
        ("how do I get to the exit?", "which way is the way out?"),
        "(nods) The exit is straight ahead.",
    ),
    Intent(
        "cafe",
        (
            "where is the cafe?",
            "where can I get a coffee?",
            "I would like a coffee.",
            "is there a cafe here?",
            "where can I eat something?",
            "I am hungry.",
            "where can I drink something?",
            "I am looking for the cafe.",
        ),
        ("where can I get something to eat?", "is there a cafe?"),
        "(points right) The cafe is next to the shop.",
    ),
    Intent(
        "tickets",
        (
            "where can I buy a ticket?",
            "where can I buy tickets?",
            "I need a ticket.",
            "two tickets, please.",
            "where do I get tickets?",
            "how do I buy a ticket?",
            "I would like a ticket.",
            "where are the tickets?",
        ),
        ("where do I buy tickets?", "I would like two tickets, please."),
        "(points right) Tickets are at the counter.",
    ),
    Intent(
        "cloakroom",
        (
            "where is the cloakroom?",
            "where can I leave my coat?",
            "can I leave my coat here?",
            "where can I leave my bag?",
            "can I leave my bag here?",
            "I am looking for the cloakroom.",
            "where do I put my coat?",
            "the cloakroom, please.",
        ),
        ("can I leave my coat and my bag?", "where do I leave my coat?"),
        "(points left) The cloakroom is beside the entrance.",
    ),
    Intent(
        "information",
        (
            "where is the information desk?",
            "I need information.",
            "information, please.",
            "where can I get information?",
            "where is the information?",
            "I would like some information.",
            "is there an information desk?",
            "I am looking for the information desk.",
        ),
        ("where is the information desk, please?", "I need some information."),
        "(nods) The information desk is behind you.",
    ),
)
_COUNTERS: Final = tuple(
    _counter(number, "left" if value <= 4 else "right") for value, number in enumerate(NUMBERS[:9], start=1)
)

INTENTS: Final = {intent.name: intent for intent in (*_PLACES, *_COUNTERS)}

# Enough for a first conversation, with both answers that depend on the world.
FIRST_INTENTS: Final = ("greeting", "goodbye", "opening", "toilets")
