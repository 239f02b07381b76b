"""How far one choice of an OpenAI answer may be shown: its text up to a stop string, and the tokens of that text."""

from __future__ import annotations

from dataclasses import dataclass

from inference_pods.engine.sequence import TokenEvent
from inference_pods.engine.stop_cutter import StopCutter


@dataclass(frozen=True, slots=True)
class PlacedToken:
    """A token, and where in the choice's text its own text begins, in characters."""

    event: TokenEvent
    at: int


@dataclass(frozen=True, slots=True)
class Piece:
    """What of a choice became safe to show: text, and the tokens whose text begins in what is shown by now."""

    text: str
    tokens: list[PlacedToken]


class ChoiceText:
    """Takes a choice's tokens one by one. All pieces together are the same, however the answer is sent.

    A token that begins with the stop string or after it is never shown; one that ends with a part of it is.
    """

    def __init__(self, stop_strings: tuple[str, ...]) -> None:
        self._cutter = StopCutter(stop_strings)
        self._cuts = bool(stop_strings)
        self._held: list[PlacedToken] = []
        self._characters = 0  # of all tokens
        self._shown = 0
        self.tokens = 0  # taken, shown or not

    def push(self, event: TokenEvent) -> Piece:
        """What may be shown now; with the last token that is all that is left."""
        self.tokens += 1
        text = "" if event.token is None or event.token.special else event.token.text
        self._held.append(PlacedToken(event, self._characters))
        self._characters += len(text)
        shown = self._cutter.push(text)
        if event.finish is not None:
            shown += self._cutter.finish()
        self._shown += len(shown)
        return Piece(shown, self._release(is_last=event.finish is not None))

    def _release(self, *, is_last: bool) -> list[PlacedToken]:
        """Of a token without text (a part of a character) only later text says on which side of a stop string it is."""
        if not self._cuts or (is_last and not self._cutter.has_stopped):
            count = len(self._held)
        else:
            count = sum(token.at < self._shown for token in self._held)
        released, self._held = self._held[:count], self._held[count:]
        return released


def show_all(stop_strings: tuple[str, ...], events: list[TokenEvent]) -> Piece:
    """A finished choice in one piece."""
    choice = ChoiceText(stop_strings)
    pieces = [choice.push(event) for event in events]
    return Piece("".join(piece.text for piece in pieces), [token for piece in pieces for token in piece.tokens])
