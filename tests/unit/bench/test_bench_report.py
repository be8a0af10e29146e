"""The benchmarks' own arithmetic and bounds; no peer and no Skyspan is run."""

import os
import sys
from pathlib import Path

import pytest
from bench.compositions import chain, fan, referring
from bench.processes import BrokenRunError, run
from bench.report import Measure, Row, table
from bench.rounds import alternate, percentile

from skyspan.app.load import load_checked
from skyspan.providers.registry import Registry

ENV = {"PATH": os.defpath}


def test_a_peer_is_shown_as_a_multiple_of_skyspan() -> None:
    measure = Measure("Time", "s", (Row("skyspan", 2.0), Row("doit", 5.0), Row("luigi", None, note="not installed")))
    assert [measure.ratio(row) for row in measure.rows] == [1.0, 2.5, None]
    shown = table([measure])
    assert "2.50x" in shown
    assert "not installed" in shown


def test_a_measure_without_a_value_of_ours_has_no_ratios() -> None:
    assert Measure("Time", "s", (Row("doit", 5.0),)).document()["rows"][0]["ratio"] is None


def test_rounds_alternate_their_order() -> None:
    seen: list[str] = []
    alternate({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 2)
    assert seen == ["a", "b", "b", "a"]


def test_the_99th_percentile_of_a_hundred_is_the_last_but_one_or_later() -> None:
    assert percentile([float(n) for n in range(100)], 0.99) == 99.0
    assert percentile([7.0], 0.99) == 7.0


def test_a_process_that_fails_breaks_the_run_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(BrokenRunError, match=r"exit status 3.*\n.*oh no"):
        run([sys.executable, "-c", "import sys; print('oh no'); sys.exit(3)"], tmp_path, ENV)


def test_a_process_that_does_not_end_is_ended(tmp_path: Path) -> None:
    with pytest.raises(BrokenRunError, match="exit status -9"):
        run(["sleep", "60"], tmp_path, ENV, timeout_s=0.1)


@pytest.mark.parametrize(("text", "stages"), [(chain(5, check=("true",)), 5), (fan(5), 7), (referring(30), 30)])
def test_what_is_measured_is_a_valid_composition(text: str, stages: int, tmp_path: Path) -> None:
    (tmp_path / "skyspan.yaml").write_text(text)
    _, checked = load_checked(tmp_path, Registry().spec_of)
    assert len(checked.order) == stages
