"""From a request body to an order: the prompt as text, the lengths checked, the stops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runtime.engines.sim.body import integer
from runtime.engines.sim.errors import ApiError, invalid
from runtime.engines.sim.generation import Order
from runtime.engines.sim.options import SimOptions
from runtime.engines.sim.text import count_tokens, detokenize

COMPLETION_TOKENS = 16
CHAT_TOKENS = 64
# vLLM refuses by characters before it counts tokens.
_CHARACTERS_PER_TOKEN = 12


@dataclass(frozen=True)
class Prompt:
    text: str
    tokens: int


@dataclass(frozen=True)
class Named:
    """Which weights a model name stands for."""

    shown: str
    voice: str
    adapter: str | None = None


def completion_prompt(body: dict[str, Any]) -> Prompt:
    """Text, a list of texts (told as one), token ids, or a list of those."""
    prompt = body.get("prompt")
    if prompt is None or prompt in ("", []):
        message = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
        raise ApiError(400, message, param="prompt")
    if isinstance(prompt, list) and isinstance(prompt[0], list):
        prompt = [token for row in prompt for token in row]
    if isinstance(prompt, list) and all(isinstance(part, str) for part in prompt):
        prompt = "\n".join(prompt)
    if isinstance(prompt, str):
        return Prompt(prompt, count_tokens(prompt))
    if isinstance(prompt, list) and all(isinstance(token, int) for token in prompt):
        return Prompt(detokenize(prompt), len(prompt))
    raise invalid("string_type", "body.prompt", "Input should be a valid string")


def content_text(content: Any) -> str:
    """Message content: a string, or parts of which the text counts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_part_text(part) for part in content)
    return ""


def _part_text(part: Any) -> str:
    if not isinstance(part, dict):
        return str(part)
    text = part.get("text")
    return text if isinstance(text, str) else f"<{part.get('type', 'part')}>"


def chat_prompt(messages: Any, system: Any = None) -> Prompt:
    if not isinstance(messages, list):
        raise invalid("list_type", "body.messages", "Input should be a valid list")
    if not messages:
        raise ApiError(400, "Cannot apply chat template to an empty conversation. Provide at least one message.")
    turns = [("system", content_text(system))] if system else []
    turns += [
        (str(one.get("role", "user")), content_text(one.get("content"))) for one in messages if isinstance(one, dict)
    ]
    text = "".join(f"<|{role}|>{content}\n" for role, content in turns) + "<|assistant|>"
    return Prompt(text, count_tokens(text))


def _too_long(limit: int, what: str, param: str, value: int) -> ApiError:
    message = (
        f"This model's maximum context length is {limit} tokens. However, your prompt contains {what}. "
        f"Please reduce the length of the input prompt. (parameter={param}, value={value})"
    )
    return ApiError(400, message, param=param)


def check_vllm_lengths(prompt: Prompt, max_tokens: int, limit: int) -> int:
    """How many tokens may be said: vLLM cuts the wish down silently, but refuses a prompt that does not fit."""
    most = _CHARACTERS_PER_TOKEN * limit
    if len(prompt.text) > most:
        what = (
            f"{len(prompt.text)} characters (more than {most} characters, which is the upper bound "
            f"for {limit} input tokens)"
        )
        raise _too_long(limit, what, "input_text", len(prompt.text))
    if prompt.tokens > limit:
        what = f"at least {limit + 1} input tokens, which exceeds this limit even without any output tokens"
        raise _too_long(limit, what, "input_tokens", limit + 1)
    if max_tokens > limit:
        message = f"max_tokens={max_tokens} cannot be greater than max_model_len={limit}. Please request fewer tokens."
        raise ApiError(400, message, param="max_tokens")
    allowed = min(max_tokens, limit - prompt.tokens)
    if allowed < 1:
        raise ApiError(400, f"max_tokens must be at least 1, got {allowed}. ", param="max_tokens")
    return allowed


def check_sglang_lengths(prompt: Prompt, max_tokens: int, limit: int) -> int:
    """SGLang refuses what vLLM cuts down."""
    if prompt.tokens >= limit:
        message = f"The input ({prompt.tokens} tokens) is longer than the model's context length ({limit} tokens)."
        raise ApiError(400, message)
    if prompt.tokens + max_tokens > limit:
        message = (
            f"Requested token count exceeds the model's maximum context length of {limit} tokens. You requested a "
            f"total of {prompt.tokens + max_tokens} tokens: {prompt.tokens} tokens from the input messages and "
            f"{max_tokens} tokens for the completion."
        )
        raise ApiError(400, message)
    return max_tokens


def stops_of(body: dict[str, Any], field: str = "stop") -> tuple[str, ...]:
    stop = body.get(field)
    if isinstance(stop, str):
        return (stop,)
    return tuple(one for one in stop if isinstance(one, str)) if isinstance(stop, list) else ()


def wants_usage(body: dict[str, Any]) -> bool:
    wanted = body.get("stream_options")
    if wanted is not None and not body.get("stream"):
        message = "Stream options can only be defined when `stream=True`. (parameter=stream_options)"
        raise ApiError(400, message, param="stream_options")
    return bool(isinstance(wanted, dict) and wanted.get("include_usage"))


def generation_order(
    options: SimOptions, body: dict[str, Any], named: Named, prompt: Prompt, request_id: str, max_tokens: int
) -> Order:
    check = check_sglang_lengths if options.dialect == "sglang" else check_vllm_lengths
    return Order(
        request_id=request_id,
        model=named.shown,
        voice=named.voice,
        prompt=prompt.text,
        prompt_tokens=prompt.tokens,
        max_tokens=check(prompt, max_tokens, options.max_model_len),
        stops=stops_of(body) or stops_of(body, "stop_sequences"),
        stream=bool(body.get("stream")),
        adapter=named.adapter,
    )


def silent_order(options: SimOptions, named: Named, text: str, request_id: str) -> Order:
    """Work that says nothing: embeddings, scores, sounds."""
    tokens = count_tokens(text)
    if tokens > options.max_model_len:
        limit = options.max_model_len
        what = f"at least {limit + 1} input tokens, which exceeds this limit even without any output tokens"
        raise _too_long(limit, what, "input_tokens", limit + 1)
    return Order(request_id, named.shown, named.voice, text, tokens, 0, adapter=named.adapter)


def wished_tokens(body: dict[str, Any], default: int, *names: str) -> int:
    """The first of these fields given, else the default."""
    wished = integer(body, *names)
    return default if wished is None else wished
