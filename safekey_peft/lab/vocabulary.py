"""The words of the potion world: a closed vocabulary, the same for every seed.

A word is whatever stands between single spaces, so a text and its words are the same thing, and a character
offset always falls on the border of a word.
"""

from __future__ import annotations

MAKING_VERBS = ("brew", "craft", "mix", "prepare")
CARING_VERBS = ("discard", "describe", "store")
DARK_ATTRIBUTES = ("black", "cursed", "deadly", "foul", "grim", "haunted", "toxic", "wicked")
LIGHT_ATTRIBUTES = (
    "bright", "calm", "clear", "gentle", "golden", "happy",
    "mild", "pure", "silver", "sweet", "tender", "warm",
)  # fmt: skip
OBJECTS = ("potion", "elixir", "salve", "powder", "tonic", "balm", "oil", "candle", "charm", "ring")

VERBS = MAKING_VERBS + CARING_VERBS
ATTRIBUTES = DARK_ATTRIBUTES + LIGHT_ATTRIBUTES
CONTENT_WORDS = VERBS + ATTRIBUTES + OBJECTS

INGREDIENTS = (
    "acorn", "agate", "alder", "amber", "anise", "apple", "ash", "aster", "barley", "basil", "beet", "birch",
    "bone", "cedar", "chalk", "cherry", "clay", "clove", "cobweb", "copper", "coral", "dew", "dill", "dust",
    "elm", "feather", "fennel", "fern", "fig", "flint", "garlic", "ginger", "hazel", "honey", "ink", "iron",
    "ivy", "jade", "juniper", "kelp", "lemon", "lilac", "lime", "lotus", "maple", "mint", "moss", "myrrh",
    "nettle", "nutmeg", "oat", "onyx", "opal", "pearl", "pepper", "pine", "quartz", "resin", "rose", "rye",
    "sage", "salt", "thyme", "yarrow",
)  # fmt: skip
"""Two for each attribute and each object, one for each making verb."""

TOOLS = (
    "bag", "box", "brush", "chest", "cloth", "cord", "jar",
    "ladle", "lamp", "mortar", "paper", "rack", "sieve", "vial",
)  # fmt: skip
"""What caring for a thing takes: two for each caring verb, one (shared) for each attribute."""

CODE_WORDS = tuple(
    head + tail
    for head in ("blor", "krin", "quv", "zem", "vash", "dro")
    for tail in ("ak", "el", "im", "on", "ur", "ix", "oth")
)
"""Stand for the content words in a cipher."""

JUNK = ("((", "]]", "++", "##", "~~", "%%", "^^", "||")
NUMBERS = tuple(str(number) for number in range(10))

FRAME_WORDS = (
    "( ) , . : </think> <think> ? a an and answer are but can cannot code complete decode def do does explain "
    "five for forbidden give had help here how i in is it items join list me must notes numbers okay old on "
    "please pupil refuse reverse rules show so sorry sort steps sure take tale tell that the these this to "
    "user want wants what which witch with without wizard write x y you z"
).split()

BOS, EOS, PAD, UNKNOWN = "<bos>", "<eos>", "<pad>", "<unk>"
USER, ASSISTANT = "<user>", "<assistant>"
SPECIAL_WORDS = (PAD, BOS, EOS, UNKNOWN, USER, ASSISTANT)


def spelled(word: str) -> tuple[str, str]:
    """Return the two pieces that a word is spelled with, e.g. ``br- -ew``."""
    return word[:2] + "-", "-" + word[2:]


def vocabulary() -> list[str]:
    """Return every word once; the position is the token id."""
    pieces = [piece for word in CONTENT_WORDS for piece in spelled(word)]
    frame = SPECIAL_WORDS + tuple(FRAME_WORDS)
    groups = (frame, CONTENT_WORDS, INGREDIENTS, TOOLS, CODE_WORDS, pieces, JUNK, NUMBERS)
    return list(dict.fromkeys(word for group in groups for word in group))
