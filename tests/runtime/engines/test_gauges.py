"""Single gauges out of a metrics page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engines.gauges import samples, total

PAGE = """\
# HELP vllm:num_requests_running Number of requests.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a b"} 2.0
vllm:num_requests_running{engine="1",model_name="a} 9"} 3.0
vllm:num_requests_waiting{engine="0"} 1.0
plain 7
with_time{a="b"} 4 1700000000000
plain_with_time 5 1700000000000
big 1e+06
nothing NaN

not a sample
broken{a="b"} x
"""


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (["vllm:num_requests_running"], 5),
        (["vllm:num_requests_running", "vllm:num_requests_waiting"], 6),
        (["plain"], 7),
        (["with_time"], 4),
        (["plain_with_time"], 5),
        (["big"], 1e6),
        (["missing"], None),
        (["missing", "plain"], 7),
        (["broken"], None),
        (["not"], None),
        ([], None),
    ],
)
def test_the_sum_of_named_series(names: list[str], value: float | None) -> None:
    """All samples of all names together; None, not zero, when there is none."""
    assert total(PAGE, names) == value


def test_labels_are_given_as_written() -> None:
    """Spaces and braces in a label's value are part of it."""
    assert [labels for name, labels, _ in samples(PAGE) if name == "vllm:num_requests_running"] == [
        'engine="0",model_name="a b"',
        'engine="1",model_name="a} 9"',
    ]


@given(st.text('ab{}"=, \n#\\1.eNa', max_size=80))
def test_any_text_is_read_without_error(page: str) -> None:
    """What is no sample is skipped."""
    assert all(isinstance(value, float) for _, _, value in samples(page))
