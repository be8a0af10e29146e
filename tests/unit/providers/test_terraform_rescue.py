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
from skyspan.providers.terraform.lookup import (
    Answers,
    Found,
    Settled,
    Wanted,
    bearing_tag,
    ignoring_environment,
    is_askable,
    question_blocks,
    questions,
    refused,
    seeing_environment,
    settle,
)
from skyspan.providers.terraform.parse import Moved
from skyspan.providers.terraform.rescue import (
    creations_of,
    in_doubt,
    missing_objects,
    replaced_by_import,
    triage,
    type_of,
    without_destroyed,
)

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


def settled_of(wanted: list[Wanted], *objects: Found, kind: tuple[str, str] = KIND, last: bool = True) -> Settled:
    return settle(wanted, Answers({kind: objects}), frozenset(), last=last)


def test_planned_attributes_tell_who_is_who_and_who_was_never_made() -> None:
    settled = settle(
        [wanted("a", "10.0.0.0/24"), wanted("b", "10.0.1.0/24"), wanted("c", "10.0.2.0/24")],
        Answers(
            {KIND: [found("s-2", "10.0.1.0/24", vpc_id="v"), found("s-1", "10.0.0.0/24"), found("s-0", "10.0.9.0/24")]}
        ),
        frozenset({"s-0"}),
    )
    assert settled.imports == {"aws_subnet.a": "s-1", "aws_subnet.b": "s-2"}
    assert (settled.absent, settled.open) == (("aws_subnet.c",), {})


def test_resources_planned_alike_are_interchangeable() -> None:
    settled = settled_of([wanted("b", None), wanted("a", None)], found("s-1", "x"))
    assert (settled.imports, settled.absent) == ({"aws_subnet.a": "s-1"}, ("aws_subnet.b",))


def test_resources_that_may_yet_turn_out_different_wait_for_what_a_further_plan_knows() -> None:
    alike = [wanted("a", "x"), wanted("b", "x")]
    objects = [found("s-1", "x", vpc_id="v-1"), found("s-2", "x", vpc_id="v-2")]
    early = settled_of(alike, *objects, last=False)
    assert (early.nothing, sorted(early.open)) == (True, ["aws_subnet.a", "aws_subnet.b"])
    later = [wanted("a", "x", vpc_id="v-2"), wanted("b", "x", vpc_id="v-1")]
    assert settled_of(later, *objects, last=False).imports == {"aws_subnet.a": "s-2", "aws_subnet.b": "s-1"}


def test_what_fits_two_different_ones_or_none_is_left_to_a_person() -> None:
    two = settled_of([wanted("a", "x"), wanted("b", None, vpc_id="v")], found("s-1", "x", vpc_id="v"))
    assert two.imports == {}
    assert two.open == dict.fromkeys(("aws_subnet.a", "aws_subnet.b"), "was being created; it may be s-1")
    stray = settled_of([wanted("a", "x"), wanted("b", "z")], found("s-1", "y"), found("s-2", "z"))
    assert (stray.open, stray.imports) == (
        {"aws_subnet.a": "was being created; it may be s-1"},
        {"aws_subnet.b": "s-2"},
    )
    more = settled_of([wanted("a", "x")], found("s-1", "x"), found("s-2", "x"))
    assert (more.imports, more.open) == ({}, {"aws_subnet.a": "was being created; it may be s-1, s-2"})


def rule(name: str, **values: Any) -> Wanted:
    return Wanted(f"aws_vpc_security_group_ingress_rule.{name}", "aws_vpc_security_group_ingress_rule", "aws", values)


def test_a_rule_without_a_tag_is_told_by_all_of_it_and_others_of_its_group_do_not_matter() -> None:
    kind = ("aws_vpc_security_group_ingress_rule", "aws")
    mine = rule("a", security_group_id="sg-1", ip_protocol="tcp", from_port=22, to_port=22, cidr_ipv4="10.0.0.0/8")
    same = {"security_group_id": "sg-1", "ip_protocol": "tcp", "from_port": 22, "to_port": 22}
    objects = [Found("sgr-1", {**same, "cidr_ipv4": None}), Found("sgr-2", {**same, "cidr_ipv4": "10.0.0.0/8"})]
    assert settled_of([mine], *objects, kind=kind).imports == {mine.address: "sgr-2"}
    assert settled_of([mine], objects[0], kind=kind).absent == (mine.address,)
    assert is_askable(mine)
    assert not is_askable(rule("b", ip_protocol="tcp"))
    [asked] = questions([mine])
    assert asked.filters == (("group-id", ("sg-1",)),)


def test_what_has_no_list_is_asked_for_by_all_that_is_known_of_it_each_alone() -> None:
    def key(name: str) -> Wanted:
        values = {"key_name": name, "tags_all": {"owner": "me"}}
        return Wanted(f"aws_key_pair.{name}", "aws_key_pair", "aws", values)

    asked = questions([key("a"), key("b")])
    assert [item.filters for item in asked] == [
        (("key-name", (name,)), ("tag:owner", ("me",))) for name in ("a", "b")
    ]  # fmt: skip
    document = json.loads(question_blocks(asked, ["t"])[0])
    first = document["data"]["aws_key_pair"]["skyspan_lookup_0"]["filter"]
    assert [item["name"] for item in first] == ["tag:skyspan-attempt", "key-name", "tag:owner"]
    told = (
        "cloud: error: no matching EC2 Key Pair found\n    in data.aws_key_pair.skyspan_lookup_0\n"
        "cloud: error: multiple EC2 Key Pairs matched; use additional constraints\n"
        "    in data.aws_key_pair.skyspan_lookup_1"
    )
    assert refused(told, asked) == {asked[0]: False, asked[1]: True}
    assert refused(f"{told}\ncloud: error: something else", asked) is None
    several = settle([key("b")], Answers({}, frozenset(asked[1].about)), frozenset())
    assert several.open == {"aws_key_pair.b": "was being created; it may be one of several objects like it"}


def test_a_role_is_listed_by_its_name_and_known_by_its_tag() -> None:
    named = Wanted("aws_iam_role.a", "aws_iam_role", "aws", {"name": "a.b"})
    prefixed = Wanted("aws_iam_role.b", "aws_iam_role", "aws", {"name_prefix": "p-"})
    blocks, _ = question_blocks(questions([named, prefixed]), ["t1"])
    document = json.loads(blocks)
    assert document["data"]["aws_iam_roles"]["skyspan_lookup_0"]["name_regex"] == r"^(a\.b|p\-.*)$"
    assert 'contains(["t1"], try(x.tags["skyspan-attempt"], ""))' in document["output"]["skyspan_lookup_0"]["value"]


def test_the_tag_is_hidden_from_plans_and_seen_by_questions() -> None:
    for given, hidden, seen in (
        ({}, "skyspan-attempt", ""),
        ({"TF_AWS_IGNORE_TAGS_KEYS": "a"}, "a,skyspan-attempt", "a"),
    ):
        environment = ignoring_environment(given)
        assert environment == {"TF_AWS_IGNORE_TAGS_KEYS": hidden}
        assert seeing_environment(environment) == {"TF_AWS_IGNORE_TAGS_KEYS": seen}


def test_what_is_in_doubt_is_settled_by_commands_that_can_be_typed_as_they_are() -> None:
    error = in_doubt({'aws_x.y["k"]': "why"}, "cloud", "app")
    assert error.hint.splitlines()[1:] == [
        """skyspan state settle 'aws_x.y["k"]' app --stage cloud --import-id ID""",
        """skyspan state settle 'aws_x.y["k"]' app --stage cloud --absent""",
    ]


def test_ids_that_are_known_are_printed_with_the_commands() -> None:
    error = in_doubt({"aws_key_pair.k": "why"}, "cloud", "app", ids={"aws_key_pair.k": "my key", "aws_vpc.v": "v"})
    assert error.hint.splitlines()[1:] == [
        "skyspan state settle aws_key_pair.k app --stage cloud --import-id 'my key'",
        "skyspan state settle aws_key_pair.k app --stage cloud --absent",
    ]


def taken_in(address: str, before: dict[str, Any], *paths: list[str], actions: str = "delete create") -> dict[str, Any]:
    change = {"actions": actions.split(), "importing": {"id": "x"}, "before": before, "replace_paths": [*paths]}
    return {"address": address, "change": change}


def test_what_an_import_would_replace_is_asked_about_unless_a_changed_configuration_wants_it() -> None:
    key = taken_in("aws_key_pair.k", {"key_name": "k", "public_key": None}, ["public_key"])
    subnet = taken_in("aws_subnet.s", {"cidr_block": "10.0.0.0/24"}, ["cidr_block"])
    kept = taken_in("aws_vpc.v", {}, actions="no-op")
    data = taken_in("terraform_data.d", {"triggers_replace": None}, ["triggers_replace"])
    shown = {"resource_changes": [key, subnet, kept, data]}
    assert replaced_by_import(shown, {}, as_planned=False) == {"aws_key_pair.k": "public_key"}
    both = {"aws_key_pair.k": "public_key", "aws_subnet.s": "cidr_block"}
    assert replaced_by_import(shown, {}, as_planned=True) == both
    assert replaced_by_import(shown, {"aws_key_pair.k": "k", "aws_subnet.s": "s-1"}, as_planned=True) == {}


def test_what_bears_the_tag_and_belongs_to_nothing_is_told_with_the_command_that_lets_it_be() -> None:
    tag = {"skyspan-attempt": "t", "Name": "n"}
    objects = (Found("s-1", {"tags_all": tag}), Found("s-2", {"tags_all": {"Name": "n"}}), Found("s-3", {}))
    assert bearing_tag(Answers({KIND: objects})) == {("aws_subnet", "s-1")}
    strays = [("aws_subnet", "s-1"), ("aws_iam_role", "r")]
    error = in_doubt({}, "cloud", "app", strays=strays)
    assert str(error).startswith("an interrupted apply of cloud left 2 objects that no resource claims")
    assert error.detail.splitlines() == [
        "aws_iam_role r: was made by it, and no resource claims it",
        "aws_subnet s-1: was made by it, and no resource claims it",
    ]
    assert error.hint.splitlines()[1:] == [
        "aws iam untag-role --role-name r --tag-keys skyspan-attempt",
        "aws ec2 delete-tags --resources s-1 --tags Key=skyspan-attempt",
    ]
    both = in_doubt({"aws_vpc.v": "why"}, "cloud", "app", strays=strays[:1])
    assert "left 1 resource in doubt and 1 object that no resource claims" in str(both)
    assert len(both.hint.splitlines()) == 5


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


def test_while_a_command_is_at_work_all_that_could_have_begun_unheard_is_looked_for() -> None:
    planned = {
        "aws_vpc.v": Creation("aws_vpc", "aws"),
        "aws_subnet.s[0]": Creation("aws_subnet", "aws", {"cidr_block": "x"}, ("aws_vpc.v",)),
        "aws_sqs_queue.q": Creation("aws_sqs_queue", "aws", {}, ("aws_subnet.s",)),
        "null_resource.n": Creation("null_resource", "null"),
    }
    journal = Journal().opened(ME, planned, 0.0)
    assert (journal.open, journal.empty) == (True, False)
    assert Journal.load(journal.dump()) == journal
    first = triage(journal, {}, planned, frozenset())
    assert [item.address for item in first.wanted] == ["aws_vpc.v"], "no subnet is begun before its VPC is there"
    found = triage(replace(journal, settled={"aws_vpc.v": "vpc-1"}), {}, planned, frozenset())
    assert ([item.address for item in found.wanted], dict(found.open)) == (["aws_subnet.s[0]"], {})
    both = {"aws_vpc.v": "vpc-1", "aws_subnet.s[0]": "s-1"}
    last = triage(replace(journal, settled=both), {}, planned, frozenset())
    assert dict(last.open) == {"aws_sqs_queue.q": "may have been in creation; Skyspan cannot look for aws_sqs_queue"}
    heard = journal.closed({}, clean=False, ok=False)
    assert (heard.open, heard.empty) == (False, True), "whoever heard all of it knows what was begun"


def test_a_tentative_import_of_nothing_is_recognised() -> None:
    said = (
        'Cannot import non-existent remote object: While attempting to import an existing object to "aws_route.r", the'
    )
    assert missing_objects(said, frozenset({"aws_route.r", "aws_route.s"})) == {"aws_route.r"}
    keyed = 'Cannot import non-existent remote object\n import an existing object to "aws_route.r[\\"k\\"]", the'
    assert missing_objects(keyed, frozenset({'aws_route.r["k"]', "aws_route.r"})) == {'aws_route.r["k"]'}
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
