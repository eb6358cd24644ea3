from __future__ import annotations

from controller.fleet.silence import HUNG_SECONDS, MUTE_SECONDS, Silence


def test_who_has_nothing_to_do_may_be_silent() -> None:
    silence = Silence()
    assert not silence.suspects(in_flight=0, answers=7, now=0.0)
    assert not silence.suspects(in_flight=0, answers=7, now=0.0)


def test_who_has_answered_since_the_last_look_is_not_suspected() -> None:
    silence = Silence()
    for answers in range(5):
        assert not silence.suspects(in_flight=3, answers=answers, now=0.0)
    assert silence.suspects(in_flight=3, answers=4, now=0.0)


def test_a_pulse_that_stands_still_is_silence_and_one_that_moves_is_none() -> None:
    silence = Silence()
    assert silence.lasts(10.0, now=0.0) == 0
    assert silence.lasts(10.0, now=HUNG_SECONDS / 2) == 0.5
    assert silence.lasts(11.0, now=HUNG_SECONDS) == 0
    assert silence.lasts(11.0, now=1.5 * HUNG_SECONDS) == 0.5
    assert silence.lasts(11.0, now=2 * HUNG_SECONDS) == 1


def test_one_that_tells_nothing_is_given_longer() -> None:
    silence = Silence()
    silence.lasts(None, now=0.0)
    for now in range(10, int(MUTE_SECONDS), 10):
        assert silence.lasts(None, now) < 1
    assert silence.lasts(None, now=MUTE_SECONDS) == 1


def test_time_in_which_nobody_looked_is_not_silence() -> None:
    """The gateway was stopped, or its machine: what the engine did meanwhile is not read yet."""
    silence = Silence()
    silence.lasts(10.0, now=0.0)
    assert silence.lasts(10.0, now=3600.0) < 1


def test_an_answer_ends_the_silence() -> None:
    silence = Silence()
    silence.suspects(in_flight=1, answers=0, now=0.0)
    silence.lasts(10.0, now=0.0)
    silence.suspects(in_flight=1, answers=1, now=0.0)
    assert silence.lasts(10.0, now=HUNG_SECONDS) == 0


def test_clients_that_leave_one_after_the_other_hide_nothing() -> None:
    """Each look that finds one waiting adds to the silence, those between add nothing, until something is answered."""
    silence, step = Silence(), HUNG_SECONDS / 6
    silence.suspects(in_flight=1, answers=0, now=0.0)
    silence.lasts(10.0, now=0.0)
    for number in range(1, 7):
        now = 2 * number * step
        assert not silence.suspects(in_flight=0, answers=0, now=now - step)
        assert silence.suspects(in_flight=1, answers=0, now=now)
        assert silence.lasts(10.0, now) == number / 6
    silence.suspects(in_flight=1, answers=1, now=now)
    assert silence.lasts(10.0, now) == 0
