"""How bench inference counts: as many numbers for each engine as rounds, however long its calls."""

import pytest

from bench import inference


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only in calls."""
    now = [0.0]
    monkeypatch.setattr(inference.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(inference, "rest", lambda: None)
    return now


def engine(clock, seconds):
    """Takes these seconds in turn, the last for ever; counts its calls."""

    def call(_):
        clock[0] += seconds[min(call.count, len(seconds) - 1)]
        call.count += 1

    call.count = 0
    return call


def test_every_engine_has_a_number_for_each_round(clock):
    calls = {"fast": engine(clock, [9.0, 0.004]), "slow": engine(clock, [9.0, 2.0])}
    times = inference.rounds(calls, None)
    assert {name: len(each) for name, each in times.items()} == dict.fromkeys(calls, inference.MINIMUM)
    assert times["fast"] == pytest.approx([0.004] * inference.MINIMUM)  # its first call, of 9 s, is not counted
    assert times["slow"] == pytest.approx([2.0] * inference.MINIMUM)
    assert calls["slow"].count == inference.MINIMUM + 1  # warmed once


def test_short_models_have_more_rounds_and_a_turn_takes_the_median_of_its_calls(clock):
    call = engine(clock, [0.0, 0.02, 0.01, 0.3, 0.02])
    (times,) = inference.rounds({"fast": call}, None).values()
    assert len(times) == inference.MAXIMUM
    assert times[0] == pytest.approx(0.02)
