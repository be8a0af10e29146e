"""The tool is killed after k of n AWS resources, for every k: the account ends with n, none lost, none made twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pytest
from tests.support.held_aws import Fate, Judge, Killing, Stand, standing_in, world_before

from skyspan.model.change import Action, Change, Observation
from skyspan.model.error import Retry, StageError
from skyspan.providers.terraform.holder import Standing, standing
from skyspan.providers.terraform.journal import Journal
from skyspan.providers.terraform.provider import TerraformProvider
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.providers.terraform.state import parse_state
from skyspan.testing.provider_world import ProviderWorld, RealClock, RecordingReporter

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

SUBNETS = 5
N = SUBNETS + 1

CONFIGURATION = """
terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}
provider "aws" {
  region = "eu-west-1"
  default_tags {
    tags = { owner = "somebody" }
  }
}
resource "aws_vpc" "main" {
  cidr_block = "10.20.0.0/16"
}
resource "aws_subnet" "part" {
  count      = 5
  vpc_id     = aws_vpc.main.id
  cidr_block = cidrsubnet(aws_vpc.main.cidr_block, 8, count.index)
}
output "subnets" {
  value = aws_subnet.part[*].id
}
"""

Tool = Literal["tofu", "terraform"]


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    with standing_in() as standing_in_for_aws:
        yield standing_in_for_aws


class PutOn(RealClock):
    """The system's time, put on after each kill: nobody waits until a cloud lists what it has just made."""

    def __init__(self) -> None:
        self.by_s = 0.0

    def now(self) -> float:
        return super().now() + self.by_s


@dataclass
class Site:
    """A stage that is planned once and applied in any number of empty accounts."""

    stand: Stand
    world: ProviderWorld
    planned: dict[str, Change] = field(default_factory=dict)
    provider: TerraformProvider = field(default_factory=TerraformProvider)
    clock: PutOn = field(default_factory=PutOn)

    def __post_init__(self) -> None:
        self.world.clock = self.clock

    async def interrupted(self, spec: TerraformSpec, k: int, unanswered: int, judge: Judge) -> Journal:
        """Apply in an empty account and kill all of the tool after k are done, with so many others under way.

        How far the tool comes once the last one is done is chance: it ends its provider, pushes its state, goes.
        """
        world, tool = self.world, spec.tool
        world.kept.data.clear()
        self.stand.begin(judge)
        world.report = killing = Killing(world, self.stand, k, unanswered)
        if tool not in self.planned:
            self.planned[tool] = await self.provider.plan(spec, Observation.absent(), world.reading())
        try:
            await self.provider.apply(spec, self.planned[tool], world.writing())
        except StageError as error:
            assert ("killed by signal 9" in error.summary, error.retry) == (True, Retry.LATER)
            assert k == N or {"lock", "journal"} < set(world.kept.data)
        else:
            assert k == N, "the tool outlived its kill"
        assert k == N or len(killing.killed) >= 2, "the tool and its provider"
        assert len(self.stand.stopped) == unanswered
        self.stand.release()
        self.clock.by_s += 60
        world.report = RecordingReporter()
        return Journal.load(world.kept.data.get("journal"))


@pytest.fixture(scope="module")
def site(stand: Stand, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(stand, world_before(stand, tmp_path_factory.mktemp("aws"), CONFIGURATION))


def spec_of(tool: Tool) -> TerraformSpec:
    return TerraformSpec(source="cloud", tool=tool, parallelism=N)


def real(stand: Stand) -> dict[str, str]:
    """What stands in the account, by id, as its stand-in's API lists it; not what is there by itself."""
    ec2 = stand.client()
    vpcs = [vpc for vpc in ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]]
    inside = [item for item in ec2.describe_subnets()["Subnets"] if item["VpcId"] in {vpc["VpcId"] for vpc in vpcs}]
    return {vpc["VpcId"]: vpc["CidrBlock"] for vpc in vpcs} | {item["SubnetId"]: item["CidrBlock"] for item in inside}


def recorded(world: ProviderWorld) -> list[str]:
    """The ids that the kept state holds."""
    state = world.kept.data.get("state")
    return list(parse_state(state).known.values()) if state else []


def after(k: int, fate: Fate) -> Judge:
    """Lets k creations pass; what becomes of the others is `fate`."""
    left = [k]

    def judge(asked: dict[str, str]) -> Fate:
        if asked["Action"] not in ("CreateVpc", "CreateSubnet"):
            return Fate.PASS
        assert any(asked.get(key) == "skyspan-attempt" for key in asked if key.startswith("TagSpecification"))
        left[0] -= 1
        return Fate.PASS if left[0] >= 0 else fate

    return judge


EVERY_K: list[tuple[Tool, int, Fate]] = [
    *(("tofu", k, Fate.HELD) for k in range(N + 1)),
    ("terraform", 1, Fate.HELD),
    ("terraform", 4, Fate.LOST),
]
PLANNED_AGAIN: tuple[int, ...] = (1,)
if os.environ.get("SKYSPAN_EVERY_KILL"):
    PLANNED_AGAIN = tuple(range(N + 1))
    EVERY_K = [(tool, k, fate) for tool in get_args(Tool) for fate in (Fate.HELD, Fate.LOST) for k in range(N + 1)]


@pytest.mark.parametrize(("tool", "k", "fate"), EVERY_K)
async def test_after_k_of_n_all_are_taken_up_and_none_is_made_twice(tool: Tool, k: int, fate: Fate, site: Site) -> None:
    world, stand, spec = site.world, site.stand, spec_of(tool)
    under_way = 1 if k == 0 else N - k  # The subnets wait for their VPC.
    left = await site.interrupted(spec, k, under_way, after(k, fate))
    before = real(stand)
    assert len(before) == (k + under_way if fate is Fate.HELD else k)
    in_state = len(recorded(world))
    assert (len(left.made) + in_state, len(left.begun)) == (k, under_way)
    assert {standing(holder) for holder in left.holders} <= {Standing.DEAD}
    locked = "lock" in world.kept.data
    if locked:
        [holder] = left.holders
        assert json.loads(world.kept.data["lock"])["holder"]["attempt"] == holder.attempt

    seen = await site.provider.observe(spec, world.reading())
    assert (seen.exists, seen.healthy) == (True, in_state == N)
    change = await site.provider.plan(spec, seen, world.reading())
    if in_state == N:
        assert change.action is Action.NONE
    elif before:
        assert f"{len(before) - in_state} to import" in change.reason
    there = await site.provider.apply(spec, change, world.writing())

    now = real(stand)
    assert len(now) == len(set(now.values())) == N, "as many as were asked for, none twice"
    assert before.items() <= now.items(), "what was made is kept"
    assert sorted(recorded(world)) == sorted(now), "and the state holds just that"
    subnets: Any = there.outputs["subnets"].value
    assert sorted(subnets) == sorted(id_ for id_ in now if id_.startswith("subnet-"))
    assert world.report.said().count("broke the state lock") == locked
    assert {"lock", "journal"} & set(world.kept.data) == set()
    if k in PLANNED_AGAIN:
        settled = await site.provider.observe(spec, world.reading())
        assert (settled.drifted, settled.drift, settled.healthy) == (False, (), True), "the tag shows up in no plan"


async def test_destroying_after_a_kill_leaves_nothing_in_the_account(site: Site) -> None:
    spec = spec_of("terraform")
    await site.interrupted(spec, 3, N - 3, after(3, Fate.HELD))
    assert len(real(site.stand)) == N
    await site.provider.destroy(spec, site.world.writing())
    assert real(site.stand) == {}
    assert site.world.kept.data == {}
