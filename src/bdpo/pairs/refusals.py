"""A cheap sign of a refusal: how a reply opens.

Good enough to see that one side of a data set refuses far more than the other. It reads English and only the
opening, misses a refusal that comes late or in other words, and takes sympathy ("I'm sorry to hear that") for
none. Where single replies are judged, in evaluation, use a judge.
"""

from __future__ import annotations

import html
import re
import unicodedata

OPENING = 120
"""Characters of a reply that are looked at: a refusal says so in its first sentence or two."""

_APOSTROPHES = "´ʹʻʼʽˈˊˋ‘’‚‛′‵＇՚׳ꞌ"
_LOOK_ALIKE = str.maketrans(
    {
        **dict.fromkeys(_APOSTROPHES, "'"),
        **dict.fromkeys("“”„‟«»＂″", '"'),
        **dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff", ""),  # without width
    }
)

_CANNOT = (
    r"(?:can'?t|cannot|can not|won'?t|will not|"
    r"(?:'m|am) (?:unable|not able|not allowed|not going|not willing) to)"
)
_HELP = (
    r"(?:help|assist|provide|give|share|offer|answer|support|comply|fulfill?|do|agree|go along|take part|"
    r"participate|engage|discuss|explain|show|teach|tell|walk you|recommend|suggest|advise|encourage|promote|"
    r"condone|write|create|generate|make|produce|continue|be part|get into|point you|in good conscience)"
)
_SIGNS = re.compile(
    rf"\bi ?(?:\w+ )?{_CANNOT} (?:\w+ )?{_HELP}\b"
    rf"|\b(?:sorry|afraid|apologies)\b[^.?!]{{0,8}}\bi ?(?:{_CANNOT}|(?:'m|am) not programmed)"
    r"|\b(?:that's|that is|this is|it's) not something i\b"
    r"|\bi(?:'m| am) not comfortable\b|\bi don't feel comfortable\b"
    r"|\bi(?:'d| would) rather not\b|\bi (?:must |have to |need to )?(?:decline|refuse)\b"
)


def straight(text: str) -> str:
    """The text with one sign for each that looks like an apostrophe, a quote or a blank, and none without width.

    >>> straight("I´m sorry, I can‘t"), straight("I can&#39;t"), straight("I can`t")
    ("I'm sorry, I can't", "I can't", "I can't")
    """
    text = re.sub(r"(?<=[^\W\d])`(?=[^\W\d])", "'", html.unescape(text))
    return unicodedata.normalize("NFKC", text.translate(_LOOK_ALIKE))


def opens_as_refusal(reply: str) -> bool:
    """Whether the reply opens with one of the usual phrases of a refusal.

    >>> opens_as_refusal("I'm sorry, but I can't help with that.")
    True
    >>> opens_as_refusal("I'm sorry to hear that. Have you seen a doctor?")
    False
    """
    opening = " ".join(straight(reply[: 2 * OPENING]).lower().split())[:OPENING]
    return _SIGNS.search(opening) is not None
