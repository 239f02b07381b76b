"""Openings of about 16 tokens that a small language model carries on for long: none of them ends an answer early."""

from __future__ import annotations

PROMPTS: tuple[str, ...] = (
    "Once upon a time, in a small village near the sea, there lived an old man who",
    "The history of bread begins many thousands of years ago, when people first learned to",
    "On the first morning of the long voyage the captain called the crew together and said that",
    "The river starts in the mountains as a narrow stream, and on its way to the plain it",
    "When the train stopped at the last station, she took her bag, stepped down and saw",
    "A good garden needs sun, water and patience, and the first thing that a gardener should",
    "Before the invention of the printing press, books were copied by hand, which meant that",
    "The children followed the path into the forest until they came to a wooden house where",
    "Every winter the lake behind the school froze, and the teachers would let the pupils",
    "The engineer looked at the old bridge for a long time and then explained to the mayor that",
    "In the kitchen of the hotel the work began at four in the morning, when the bakers",
    "The moon was full that night, and from the tower the two guards could see how",
)


def prompt_for(index: int) -> str:
    """The prompt of the request with this index; the same in every run."""
    return PROMPTS[index % len(PROMPTS)]
