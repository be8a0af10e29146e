"""What a killed command left: the journal's sums, import ids, who is who, and what is asked of a person."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skyspan.model.change import Action
from skyspan.providers.terraform.holder import Holder, Machine, Standing, standing, this_machine
from skyspan.providers.terraform.import_ids import import_blocks, import_id, is_made_again
from skyspan.providers.terraform.journal import Creation, Journal
from skyspan.providers.terraform.lookup import Found, Wanted, question_blocks, questions, settle
from skyspan.providers.terraform.parse import Moved
from skyspan.providers.terraform.rescue import creations_of, missing_objects, triage, type_of, without_destroyed

ME = Holder("me", Machine("h", "b", "n", 0))


def told(*steps: tuple[str, str, str, str]) -> Journal:
    journal = Journal().opened(ME, {}, 0.0)
    for address, action, state, note in steps:
        journal = journal.after(Moved(address, Action(action), state, note), 1.0)
    return journal


def test_a_journal_knows_what_was_made_and_what_was_under_way() -> None:
    journal = told(
        ("a.b", "create", "started", ""), ("a.c", "create", "started", ""), ("a.b", "create", "done", "id=1")
    )
    assert (journal.made, journal.begun) == ({"a.b": "1"}, {"a.c": "me"})
    assert Journal.load(journal.dump()) == journal
    assert journal.orphans({"a.b": "1"}) == {}
    assert journal.orphans({"a.b": "2"}) == {"a.b": "1"}
    assert journal.doubts({}) == ("a.c",)


def test_a_creation_that_failed_stays_in_doubt_and_one_destroyed_again_does_not() -> None:
    journal = told(("a.b", "create", "started", ""), ("a.b", "create", "failed", ""))
    assert journal.doubts({}) == ("a.b",)
    gone = told(("a.b", "create", "done", "id=1"), ("a.b", "destroy", "done", ""))
    assert gone.empty


def test_after_a_clean_end_only_what_the_state_lacks_remains() -> None:
    journal = told(
        ("a.b", "create", "done", "id=1"), ("a.c", "create", "done", "id=2"), ("a.d", "create", "started", "")
    )
    assert journal.closed({"a.b": "1"}, clean=True, ok=False).made == {"a.c": "2"}
    assert not journal.closed({"a.b": "1"}, clean=True, ok=False).begun
    killed = journal.closed({"a.b": "1"}, clean=False, ok=False)
    assert (killed.made, killed.begun) == ({"a.c": "2"}, {"a.d": "me"})
    assert journal.closed({}, clean=True, ok=True).empty
    later = killed.opened(replace(ME, attempt="later"), {}, 2.0).closed({}, clean=True, ok=False)
    assert later.begun == {"a.d": "me"}, "what an earlier attempt left is not settled by a later failure"


def test_what_replaced_an_object_that_is_known_to_be_gone_can_be_taken_in() -> None:
    journal = told(("a.b", "destroy", "done", ""), ("a.b", "create", "started", ""), ("a.b", "create", "done", "id=2"))
    assert journal.replaced({"a.b": "1", "a.c": "9"}) == ("a.b",)
    assert journal.replaced({"a.b": "2"}) == ()
    resource = {"type": "a", "name": "b", "instances": [{"attributes": {"id": "1"}}]}
    other = {"type": "a", "name": "c", "instances": [{"attributes": {"id": "9"}, "index_key": "k"}]}
    state = json.dumps({"serial": 4, "lineage": "l", "resources": [resource, other]}).encode()
    left = json.loads(without_destroyed(state, [("a.b", "1")]))
    assert (left["serial"], [item["name"] for item in left["resources"]]) == (5, ["c"])


@pytest.mark.parametrize(
    ("type_", "identity", "values", "wanted"),
    [
        ("aws_vpc", "vpc-1", {}, "vpc-1"),
        ("aws_vpc", "", {}, None),
        ("aws_route", "r-rtb-0123456789abcdef01080289494", {"destination_cidr_block": "0.0.0.0/0"},
         "rtb-0123456789abcdef0_0.0.0.0/0"),
        ("aws_route", "r-rtb-656c65611080289494", {"destination_cidr_block": "0.0.0.0/0"}, "rtb-656c6561_0.0.0.0/0"),
        ("aws_route", "", {"route_table_id": "rtb-1", "destination_ipv6_cidr_block": "::/0"}, "rtb-1_::/0"),
        ("aws_route_table_association", "rtbassoc-1", {"subnet_id": "s", "route_table_id": "r"}, "s/r"),
        ("aws_route_table_association", "rtbassoc-1", {"gateway_id": "g", "route_table_id": "r"}, "g/r"),
        ("aws_route_table_association", "rtbassoc-1", {"subnet_id": "s"}, None),
        ("aws_iam_role_policy_attachment", "x", {"role": "r", "policy_arn": "arn:p"}, "r/arn:p"),
        ("aws_security_group_rule", "sgrule-1",
         {"security_group_id": "sg", "type": "ingress", "protocol": "tcp", "from_port": 22, "to_port": 22,
          "cidr_blocks": ["10.0.0.0/8"], "self": False}, "sg_ingress_tcp_22_22_10.0.0.0/8"),
        ("aws_network_acl_rule", "nacl-1",
         {"network_acl_id": "acl", "rule_number": 100, "protocol": "tcp", "egress": False}, "acl:100:tcp:false"),
        ("aws_ecs_service", "arn", {"cluster": "c", "name": "n"}, "c/n"),
        ("aws_lambda_permission", "s", {"function_name": "f", "statement_id": "s"}, "f/s"),
    ],
)  # fmt: skip
def test_each_type_is_imported_by_what_its_provider_wants(
    type_: str, identity: str, values: dict[str, Any], wanted: str | None
) -> None:
    assert import_id(type_, identity, values) == wanted


def test_import_blocks_quote_what_would_be_a_template() -> None:
    assert import_blocks({'a.b["k"]': 'x"${y}%{z}'}) == (b'import {\n  to = a.b["k"]\n  id = "x\\"$${y}%%{z}"\n}\n')


def test_what_lives_in_the_state_alone_is_made_again() -> None:
    assert is_made_again("random_password", finished=True)
    assert is_made_again("terraform_data", finished=False)
    assert not is_made_again("terraform_data", finished=True)
    assert not is_made_again("aws_vpc", finished=False)


def wanted(name: str, cidr: str | None, **more: Any) -> Wanted:
    return Wanted(f"aws_subnet.{name}", "aws_subnet", "aws", {"cidr_block": cidr, **more})


def found(id_: str, cidr: str, **more: Any) -> Found:
    return Found(id_, {"cidr_block": cidr, **more})


KIND = ("aws_subnet", "aws")


def test_planned_attributes_tell_who_is_who_and_who_was_never_made() -> None:
    settled = settle(
        [wanted("a", "10.0.0.0/24"), wanted("b", "10.0.1.0/24"), wanted("c", "10.0.2.0/24")],
        {KIND: [found("s-2", "10.0.1.0/24", vpc_id="v"), found("s-1", "10.0.0.0/24"), found("s-0", "10.0.9.0/24")]},
        frozenset({"s-0"}),
    )
    assert settled.imports == {"aws_subnet.a": "s-1", "aws_subnet.b": "s-2"}
    assert (settled.absent, settled.open, settled.unclear) == (("aws_subnet.c",), (), ())


def test_resources_planned_alike_are_interchangeable() -> None:
    settled = settle([wanted("b", None), wanted("a", None)], {KIND: [found("s-1", "x")]}, frozenset())
    assert (settled.imports, settled.absent) == ({"aws_subnet.a": "s-1"}, ("aws_subnet.b",))


def test_what_fits_two_different_ones_or_none_is_left_to_a_person() -> None:
    two = settle(
        [wanted("a", "x"), wanted("b", None, vpc_id="v")], {KIND: [found("s-1", "x", vpc_id="v")]}, frozenset()
    )
    assert two.imports == {}
    assert two.open == ("aws_subnet.a", "aws_subnet.b")
    stray = settle([wanted("a", "x")], {KIND: [found("s-1", "y")]}, frozenset())
    assert "nothing like it was planned" in stray.unclear[0]
    more = settle([wanted("a", "x")], {KIND: [found("s-1", "x"), found("s-2", "x")]}, frozenset())
    assert (more.imports, more.open) == ({}, ("aws_subnet.a",))


def test_each_type_and_provider_is_asked_once_by_the_attempts_tag() -> None:
    asked = questions([wanted("a", "x"), wanted("b", "y"), Wanted("aws_vpc.v", "aws_vpc", "aws.west", {})])
    blocks, targets = question_blocks(asked, ["t1", "t2"])
    document = json.loads(blocks)
    assert set(document["data"]) == {"aws_subnets", "aws_subnet", "aws_vpcs", "aws_vpc"}
    listing = document["data"]["aws_vpcs"]["skyspan_lookup_1"]
    assert listing == {"provider": "aws.west", "filter": [{"name": "tag:skyspan-attempt", "values": ["t1", "t2"]}]}
    assert len(targets) == 4


def test_triage_sorts_everything_the_state_lacks() -> None:
    journal = told(
        ("aws_vpc.v", "create", "done", "id=vpc-1"),
        ("aws_route_table_association.r", "create", "done", "id=rtbassoc-1"),
        ("aws_subnet.s", "create", "started", ""),
        ("aws_iam_role_policy_attachment.p", "create", "started", ""),
        ("aws_sqs_queue.q", "create", "started", ""),
        ("null_resource.n", "create", "done", "id=5"),
        ("aws_vpc.gone", "create", "done", "id=vpc-2"),
    )
    planned = {
        "aws_vpc.v": Creation("aws_vpc", "aws", {}),
        "aws_route_table_association.r": Creation("aws_route_table_association", "aws", {}),
        "aws_subnet.s": Creation("aws_subnet", "aws", {"cidr_block": "x"}),
        "aws_iam_role_policy_attachment.p": Creation(
            "aws_iam_role_policy_attachment", "aws", {"role": "r", "policy_arn": "a"}
        ),
        "aws_sqs_queue.q": Creation("aws_sqs_queue", "aws", {}),
        "null_resource.n": Creation("null_resource", "null", {}),
    }
    out = triage(journal, {}, planned, frozenset())
    assert out.imports == {"aws_vpc.v": "vpc-1", "aws_iam_role_policy_attachment.p": "r/a"}
    assert out.tentative == {"aws_iam_role_policy_attachment.p"}
    assert out.waiting == ("aws_route_table_association.r",)
    assert [item.address for item in out.wanted] == ["aws_subnet.s"]
    assert out.again == ("null_resource.n",)
    assert set(out.open) == {"aws_sqs_queue.q", "aws_vpc.gone"}
    settled = replace(journal, settled={"aws_sqs_queue.q": "url", "aws_vpc.gone": ""})
    again = triage(settled, {}, planned, frozenset())
    assert (again.imports["aws_sqs_queue.q"], dict(again.open)) == ("url", {})


def test_a_tentative_import_of_nothing_is_recognised() -> None:
    said = (
        'Cannot import non-existent remote object: While attempting to import an existing object to "aws_route.r", the'
    )
    assert missing_objects(said, frozenset({"aws_route.r", "aws_route.s"})) == {"aws_route.r"}
    assert missing_objects("something else", frozenset({"aws_route.r"})) == frozenset()


def test_creations_know_their_type_and_provider_also_in_modules() -> None:
    change = {"actions": ["create"], "after": {"cidr_block": "x", "assign_ipv6": False}}
    address = 'module.net["a.b"].aws_subnet.s[0]'
    shown = {
        "resource_changes": [
            {"address": address, "mode": "managed", "type": "aws_subnet", "name": "s", "change": change},
            {"address": "data.a.b", "mode": "data", "type": "a", "name": "b", "change": {"actions": ["read"]}},
        ],
        "configuration": {
            "root_module": {
                "module_calls": {
                    "net": {
                        "module": {
                            "resources": [
                                {"type": "aws_subnet", "name": "s", "mode": "managed", "provider_config_key": "aws"}
                            ]
                        }
                    }
                }
            }
        },
    }
    assert creations_of(shown) == {address: Creation("aws_subnet", "aws", {"cidr_block": "x"})}
    assert type_of(address) == "aws_subnet"


def proc(root: Path, boot: str, *attempts: str) -> Path:
    (root / "sys/kernel/random").mkdir(parents=True)
    (root / "sys/kernel/random/boot_id").write_text(boot)
    (root / "self/ns").mkdir(parents=True)
    (root / "self/ns/pid").symlink_to("pid:[1]")
    for number, attempt in enumerate(attempts):
        (root / str(100 + number)).mkdir()
        (root / str(100 + number) / "environ").write_bytes(f"A=1\0SKYSPAN_ATTEMPT={attempt}\0".encode())
    return root


def test_an_attempt_is_dead_only_when_that_is_proven(tmp_path: Path) -> None:
    here = proc(tmp_path / "proc", "b", "mine-too")
    machine = this_machine(here)
    assert standing(Holder("mine", machine), here) is Standing.DEAD, "another attempt's name that begins alike"
    assert standing(Holder("mine-too", machine), here) is Standing.ALIVE
    assert standing(Holder("mine-too", replace(machine, boot="earlier")), here) is Standing.DEAD
    assert standing(Holder("mine", replace(machine, host="other")), here) is Standing.UNKNOWN
    assert standing(Holder("mine", replace(machine, namespace="pid:[2]")), here) is Standing.UNKNOWN
    assert standing(Holder("mine", machine), tmp_path / "no-proc") is Standing.UNKNOWN
    assert standing(Holder("mine", replace(machine, host="other"), dead=True), here) is Standing.DEAD
    assert Holder.restore(Holder("mine", machine).record()) == Holder("mine", machine)
