"""Asks an endpoint one question through huggingface_hub, the maintained TGI client: does what TGI users have work?"""

from __future__ import annotations

from huggingface_hub import AsyncInferenceClient

from e2e.load.prompts import prompt_for


async def stream_text(base_url: str, output_tokens: int, timeout_seconds: float = 60) -> tuple[str, int]:
    """The text of a streamed answer and how many tokens it has; raises what the client raises."""
    client = AsyncInferenceClient(model=base_url, timeout=timeout_seconds)
    pieces: list[str] = []
    tokens = 0
    try:
        stream = await client.text_generation(
            prompt_for(0), max_new_tokens=output_tokens, stream=True, details=True, do_sample=False
        )
        async for event in stream:
            tokens += 1
            pieces.append("" if event.token.special else event.token.text)
    finally:
        await client.close()
    return "".join(pieces), tokens
