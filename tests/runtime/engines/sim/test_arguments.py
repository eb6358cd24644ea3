"""The command line takes what the real engines' command lines have."""

from __future__ import annotations

from dataclasses import fields

from runtime.engines.sim.arguments import parse, parser
from runtime.engines.sim.faults import KINDS
from runtime.engines.sim.options import SimOptions


def test_flags_of_real_engines_are_ignored() -> None:
    """Whatever they are, with their values, in either spelling; and told."""
    words = (
        "--model-path org/x --gpu-memory-utilization 0.5 --no-enable-prefix-caching --trust-remote-code "
        "--mem-fraction-static=0.5 --disable-radix-cache --enable-memory-saver --enable-lora --dtype float32 "
        "--enforce-eager --max_model_len 8k -tp 2"
    )
    options, ignored = parse(words.split(), {})
    assert (options.model, options.enable_lora, options.max_model_len) == ("org/x", True, 8000)
    assert "--mem-fraction-static=0.5" in ignored
    assert "--enforce-eager" in ignored
    assert "--enable-lora" not in ignored


def test_abbreviations_are_not_guessed() -> None:
    """--max-num is no flag of ours, so it is ignored and not read as --max-num-seqs."""
    options, ignored = parse(["--max-num", "3"], {})
    assert options.max_num_seqs == 256
    assert ignored == ["--max-num", "3"]


def test_environment_mounts_routes_and_gives_the_key() -> None:
    """The variables of vLLM, and SIM_API_KEY unless a key is given."""
    environ = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "SIM_API_KEY": "k"}
    options, _ = parse([], environ)
    assert (options.enable_sleep_mode, options.enable_lora, options.api_keys) == (True, True, ("k",))
    assert parse([], {"VLLM_ENABLE_RESPONSES_API_STORE": "1"})[0].stores_responses
    assert parse(["--api-key", "other"], environ)[0].api_keys == ("other",)


def test_lists_and_faults_are_read() -> None:
    """Names, adapters in both forms, faults added up."""
    words = ["--served-model-name", "a", "b", "--fault", '{"hang": true}', "--fault", '{"refuse": {"times": 1}}']
    words += ["--lora-modules", "x=/p", '{"name": "y", "path": "/q"}']
    options, _ = parse(words, {})
    assert options.served_names == ("a", "b")
    assert options.lora_modules == (("x", "/p"), ("y", "/q"))
    assert options.faults == {"hang": True, "refuse": {"times": 1}}


def test_defaults_of_the_command_line_are_those_of_the_options() -> None:
    """One place for each default."""
    assert parse([], {})[0] == SimOptions()


def test_help_tells_every_option_and_fault() -> None:
    """--help is the documentation."""
    text = parser().format_help()
    spelled = {"api_keys": "--api-key", "faults": "--fault"}
    for field in fields(SimOptions):
        assert spelled.get(field.name, "--" + field.name.replace("_", "-")) in text
    for kind in KINDS:
        assert kind in text
