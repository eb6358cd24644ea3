"""Make a small Llama with random weights, or a LoRA for one, without downloading anything.

    python tiny_model.py model FOLDER [--hidden 64 --layers 2]
    python tiny_model.py lora  FOLDER --base MODEL_FOLDER

Runs with the Python that has vLLM: it needs torch, transformers, tokenizers, safetensors. The same call makes the same
weights again. What the model writes is nonsense, but printable ASCII, and it never ends before ``max_tokens``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found]  # of the engine's environment, not of ours
from safetensors.torch import save_file  # type: ignore[import-not-found]
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # type: ignore[import-not-found]
from transformers import (  # type: ignore[import-not-found]
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar  # type: ignore[import-not-found]

START, END, PAD = "<s>", "</s>", "<pad>"
VOCABULARY = 512
HEAD_DIM = 64
CONTEXT = 2048
RANK = 8
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj")

CHAT_TEMPLATE = """\
{%- for message in messages -%}
[{{ message.role }}] {{ message.content }}
{% endfor -%}
{%- if add_generation_prompt -%}[assistant] {% endif -%}
"""

TEXTS = (
    "The night train to Lisbon leaves at nine, and nobody on the platform is in a hurry.",
    "Seven ships went out this morning; six came back before the storm, and one a day later.",
    "Please send me the report by Friday, with all the numbers in one table.",
    "for name, port in engines.items():\n    print(f'{name} listens on {port}')\n",
    "An engine that sleeps gives its memory to the others, and takes it back when it is asked for again.",
    "What is the capital of Norway? Oslo. And of Portugal? Lisbon.",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 30 40 50 60 70 80 90 100 1000",
)

BIAS = 0
"""The hidden dimension that stays positive in every layer: the last layer reads it to rule tokens out."""


def make_tokenizer() -> Any:
    """Byte-level BPE: any text has tokens, for all 256 bytes are among them."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        special_tokens=[START, END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=START, eos_token=END, pad_token=PAD)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(folder: Path, hidden: int, layers: int, seed: int) -> None:
    tokenizer = make_tokenizer()
    heads = max(1, hidden // HEAD_DIM)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            head_dim=HEAD_DIM,
            max_position_embeddings=CONTEXT,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        )
    ).float()
    with torch.no_grad():
        _fill(model, seed)
        _rule_out(model, [token for token in range(VOCABULARY) if not _is_printable(tokenizer, token)])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    count = sum(parameter.numel() for parameter in model.parameters())
    sys.stdout.write(f"{folder}: {count:,} parameters, {len(tokenizer)} tokens\n")


def make_lora(folder: Path, base: Path, seed: int) -> None:
    config = json.loads((base / "config.json").read_text())
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for module, wide, high in _projections(config):
        down, up = torch.randn(RANK, wide, generator=random), torch.randn(high, RANK, generator=random)
        if module.endswith("o_proj"):
            up[BIAS] = 0
        tensors[f"base_model.model.{module}.lora_A.weight"] = down / wide**0.5
        tensors[f"base_model.model.{module}.lora_B.weight"] = up
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    adapter = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": list(ADAPTED),
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(adapter, indent=2))
    sys.stdout.write(f"{folder}: a LoRA of rank {RANK} for {base}\n")


def _fill(model: Any, seed: int) -> None:
    """Random weights, each layer's output about as large as its input; nothing is added to the bias dimension."""
    random = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:  # the norms
            parameter.fill_(1.0)
            continue
        wide = 1 if "embed_tokens" in name else parameter.shape[1]
        parameter.copy_(torch.randn(parameter.shape, generator=random) / wide**0.5)
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter[BIAS] = 0
    model.model.embed_tokens.weight[:, BIAS] = 1
    model.lm_head.weight.mul_(4)  # far apart: rounding changes no greedy answer
    model.lm_head.weight[:, BIAS] = 0


def _rule_out(model: Any, tokens: list[int]) -> None:
    model.lm_head.weight[tokens] = 0
    model.lm_head.weight[tokens, BIAS] = -1000


def _is_printable(tokenizer: Any, token: int) -> bool:
    text = tokenizer.decode([token]) if token < len(tokenizer) and token not in tokenizer.all_special_ids else ""
    return bool(text) and text.isascii() and text.isprintable()


def _projections(config: dict[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Each adapted layer's name, width of input and width of output."""
    hidden, inner = config["hidden_size"], config["num_attention_heads"] * config["head_dim"]
    for layer in range(config["num_hidden_layers"]):
        for name in ADAPTED:
            wide, high = (inner, hidden) if name == "o_proj" else (hidden, inner)
            yield f"model.layers.{layer}.self_attn.{name}", wide, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["model", "lora"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", type=Path, help="the model a LoRA is for")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    disable_progress_bar()
    if options.what == "model":
        make_model(options.folder, options.hidden, options.layers, options.seed)
    elif options.base is None:
        parser.error("a LoRA needs --base")
    else:
        make_lora(options.folder, options.base, options.seed)


if __name__ == "__main__":
    main()
