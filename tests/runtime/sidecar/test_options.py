"""The command line and the environment, as Kthena's and AIBrix's documents have them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from runtime.sidecar.options import Mistake, parse, supported


def test_the_defaults_are_kthenas() -> None:
    """An engine is all that must be named."""
    options = parse(["--engine", "vllm"], {})
    assert (options.host, options.port) == ("0.0.0.0", 9000)
    assert (options.engine.base_url, options.engine.metrics_path) == ("http://localhost:8000", "/metrics")
    assert (options.request_timeout, options.engine.call_seconds) == (30.0, 30.0)
    assert options.roots == (Path("/models"), Path.home(), Path(tempfile.gettempdir()))
    assert options.vocabulary.prefix == "torpor:"
    assert options.transform
    assert options.keep_originals


def test_every_flag_has_its_short_form() -> None:
    """As in the document; -I and -N are not needed."""
    short = "-E sglang -H 127.0.0.1 -P 9001 -B http://engine:8001/ -M /m -I pod-1 -N org/model"
    long = (
        "--engine SGLang --host 127.0.0.1 --port 9001 --engine-base-url http://engine:8001 --engine-metrics-path /m "
        "--pod pod-1 --model org/model"
    )
    options = parse(short.split(), {})
    assert options == parse(long.split(), {})
    assert (options.host, options.port, options.pod) == ("127.0.0.1", 9001, "pod-1")
    assert (options.engine.kind, options.engine.name, options.engine.base_url) == (
        "sglang",
        "org/model",
        "http://engine:8001",
    )
    assert options.engine.metrics_path == "/m"


def test_the_environment_fills_in() -> None:
    """AIBrix's variables; flags are above them; an empty one counts as none."""
    environ = {
        "INFERENCE_ENGINE": "sglang",
        "INFERENCE_ENGINE_ENDPOINT": "http://engine:1",
        "METRIC_SCRAPE_PATH": "/m",
        "REQUEST_TIMEOUT": "2.5",
        "DOWNLOADER_LOCAL_DIR": "/models/here",
        "DOWNLOADER_NUM_THREADS": "32",
        "VLLM_API_KEY": "sekret",
        "ENGINE_API_KEY": "",
    }
    options = parse([], environ)
    assert (options.engine.kind, options.engine.base_url) == ("sglang", "http://engine:1")
    assert (options.engine.metrics_path, options.engine.api_key) == ("/m", "sekret")
    assert (options.request_timeout, options.model_dir, options.max_workers) == (2.5, Path("/models/here"), 32)
    assert parse(["-E", "vllm", "-B", "http://b"], environ).engine.base_url == "http://b"
    assert "sekret" not in repr(options)


MISTAKES = [
    ([], {}, "--engine (or INFERENCE_ENGINE) is missing"),
    (["-E", "trtllm"], {}, f"unsupported engine 'trtllm'; supported: {', '.join(supported())}"),
    (["-E", "openai"], {}, "unsupported engine 'openai'"),
    (["-E", "vllm", "-B", "localhost:8000"], {}, "is not like http://localhost:8000"),
    (["-E", "vllm", "-B", "http://x:99999"], {}, "is not like"),
    (["-E", "vllm", "-B", "http://u:p@x"], {}, "is not like"),
    (["-E", "vllm", "-M", "metrics"], {}, "does not begin with a slash"),
    (["-E", "vllm", "--allow-root", "here"], {}, "not an absolute path"),
    (["-E", "vllm"], {"REQUEST_TIMEOUT": "soon"}, "REQUEST_TIMEOUT='soon'"),
    (["-E", "vllm"], {"REQUEST_TIMEOUT": "0"}, "REQUEST_TIMEOUT='0'"),
    (["-E", "vllm"], {"REQUEST_TIMEOUT": "nan"}, "REQUEST_TIMEOUT='nan'"),
    (["-E", "vllm"], {"DOWNLOADER_NUM_THREADS": "-1"}, "DOWNLOADER_NUM_THREADS"),
]


@pytest.mark.parametrize(("words", "environ", "reason"), MISTAKES)
def test_mistakes_say_what_to_change(words: list[str], environ: dict[str, str], reason: str) -> None:
    """An engine that is not supported above all: the supported ones are named."""
    with pytest.raises(Mistake) as mistake:
        parse(words, environ)
    assert reason in str(mistake.value)


def test_an_older_name_of_an_engine() -> None:
    """Kthena has one for disaggregated serving."""
    assert parse(["-E", "vllmDisaggregated"], {}).engine.kind == "vllm"


def test_the_help_tells_the_paths(capsys: pytest.CaptureFixture[str]) -> None:
    """So nobody needs the document."""
    with pytest.raises(SystemExit):
        parse(["--help"], {})
    told = capsys.readouterr().out
    for path in ("/v1/load_lora_adapter", "/metrics/runtime", "/v1/jobs/ID", "/v1/lora_adapter/load", "TIMEOUT"):
        assert path in told


def test_a_port_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    """Told before anything listens."""
    with pytest.raises(SystemExit) as ended:
        parse(["-E", "vllm", "-P", "99999"], {})
    assert ended.value.code == 2
    assert "'99999' is no port" in capsys.readouterr().err
