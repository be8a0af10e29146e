"""Thousands of runs in virtual time: random graphs, outcomes, crashes and take-overs, judged by an auditor.

`scenario(seed)` draws what happens, `simulate` carries it out around the pure engine, `judge` tells what was broken;
`trial` is all three. A seed that breaks a rule becomes a regression test.
"""

from skyspan.testing.simulator.auditor import audit
from skyspan.testing.simulator.judge import Verdict, judge, trial
from skyspan.testing.simulator.result import Simulated
from skyspan.testing.simulator.rules import Rule, Violation
from skyspan.testing.simulator.scenario import Scenario, scenario
from skyspan.testing.simulator.world import simulate

__all__ = ["Rule", "Scenario", "Simulated", "Verdict", "Violation", "audit", "judge", "scenario", "simulate", "trial"]
