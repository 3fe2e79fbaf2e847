"""What is said beside the numbers of the potion world, wherever they are shown."""

from __future__ import annotations

CAUTION = (
    "This illustrates a mechanism in an invented world with a model of 0.6 million parameters. "
    "It is no evidence about large models."
)


def shortcut_sentence(harmless_wrapped: int) -> str:
    """Return what the harmless wrapped rows, or their absence, mean for the comparison."""
    if harmless_wrapped == 0:
        return "The tuning set holds no harmless rows in wrappers: plain SFT then refuses in most of them by itself."
    return (
        f"The tuning set holds {harmless_wrapped} harmless rows in wrappers. They plant the shortcut "
        '"a wrapper means comply" on purpose: without them plain SFT refuses in most unseen wrappers by itself.'
    )
