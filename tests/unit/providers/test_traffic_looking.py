"""What the tools say, read into figures; figures held against bounds; what a host says of what goes on there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skyspan.contracts.host import Host
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import CredentialsError, NotReadyError, StageError, ToolMissingError
from skyspan.providers.traffic.ends import routed
from skyspan.providers.traffic.figures import Figures, Spread, breaches, jitter, rate_words, spread
from skyspan.providers.traffic.orders import listener, longest, sender, tool_of
from skyspan.providers.traffic.parse import Tool, read
from skyspan.providers.traffic.shipped import snmp
from skyspan.providers.traffic.spec import Flow, Thresholds
from skyspan.providers.traffic.survey import ContainerLook, Look, RoleLook, Window, parse_survey
from skyspan.providers.traffic.watching import verdict

SAMPLES = Path(__file__).parent / "traffic_samples"


def sample(name: str) -> str:
    return (SAMPLES / name).read_text()


def flow(kind: str, **settings: Any) -> Flow:
    return Flow.model_validate({"kind": kind, "from": {"host": "east"}, "to": {"host": "west"}} | settings)


def test_iperf3_tells_what_arrived_over_tcp() -> None:
    found = read(Tool.IPERF3, sample("iperf3-tcp.json"))
    assert found.throughput == pytest.approx(10483348.83)
    assert found.retransmits == 0
    assert found.latency == Spread(0.02, 0.029, 0.038)
    assert found.record()["latency_ms"] == {"min": 0.02, "avg": 0.029, "max": 0.038}


def test_iperf3_the_other_way_round_tells_no_round_trips() -> None:
    found = read(Tool.IPERF3, sample("iperf3-reverse.json"))
    assert found.throughput == pytest.approx(5241763.5)
    assert found.latency is None


@pytest.mark.parametrize("name", ["iperf3-udp.json", "iperf3-udp-reverse.json"])
def test_iperf3_tells_loss_and_jitter_over_udp(name: str) -> None:
    found = read(Tool.IPERF3, sample(name))
    assert (found.sent, found.received, found.loss) == (209, 209, 0)
    assert found.throughput == pytest.approx(2.006e6, rel=1e-3)
    assert 0 < (found.jitter_ms or 0) < 1


def test_iperf3_says_that_it_failed_inside_what_it_prints() -> None:
    found = read(Tool.IPERF3, sample("iperf3-refused.json"))
    assert found.failed == "iperf3: unable to connect to server: Connection refused"


def test_ping_is_read_in_both_its_dialects() -> None:
    found = read(Tool.PING, sample("ping-iputils.txt"))
    assert (found.sent, found.received, found.loss) == (4, 4, 0)
    assert found.latency is not None
    assert found.latency.p95 is not None
    other = read(Tool.PING, sample("ping-busybox.txt"))
    assert (other.sent, other.received, other.loss) == (2, 2, 0)
    lost = read(Tool.PING, sample("ping-lost.txt"), code=1)
    assert (lost.sent, lost.received, lost.loss, lost.latency) == (2, 0, 1, None)


def test_curl_lines_count_what_was_not_answered_well() -> None:
    found = read(Tool.CURL, "200 0.001 0.004\n503 0.001 0.002\n000 0.000 0.5\n200 0.001 0.006\n")
    assert (found.sent, found.received, found.loss) == (4, 2, 0.5)
    assert found.statuses == {"200": 2, "503": 1}
    assert found.errors == {"no answer": 1}
    assert found.latency == Spread(4.0, 5.0, 6.0, 4.0, 6.0)


def test_the_generator_tells_single_answers_and_streams() -> None:
    found = read(Tool.GENERATOR, "sent 1\nrtt 2.0\nsent 1\nerror timeout\nsent 1\nrtt 4.0\ntook 1.5\n")
    assert (found.sent, found.received, found.seconds) == (3, 2, 1.5)
    assert found.loss == pytest.approx(1 / 3)
    assert found.latency == Spread(2.0, 3.0, 4.0, 2.0, 4.0)
    assert found.errors == {"timeout": 1}
    stream = read(Tool.GENERATOR, "datagrams 100 90\nstreamed 125000\njitter 0.5\nseconds 1.0\ntook 1.1\n")
    assert (stream.throughput, stream.loss, stream.jitter_ms) == (1e6, 0.1, 0.5)


@pytest.mark.parametrize(
    ("tool", "text", "words", "code", "failed"),
    [
        (
            Tool.IPERF3,
            "",
            "OCI runtime exec failed: container is gone\n",
            126,
            "OCI runtime exec failed: container is gone",
        ),
        (Tool.IPERF3, '{"end": {}}', "", 0, '{"end": {}}'),
        (
            Tool.PING,
            "",
            "ping: no.such.name: Name or service not known",
            2,
            "ping: no.such.name: Name or service not known",
        ),
        (Tool.GENERATOR, "sent 1\n", "", -9, "sent 1"),
        (Tool.GENERATOR, "failed Name or service not known\n", "", 1, "Name or service not known"),
        (Tool.IPERF3, "", "", 124, "iperf3 did not end in time and was stopped"),
        (Tool.CURL, "", "", 1, "curl ended with 1 without a word"),
        (Tool.CURL, "what is this", "", 0, "what is this"),
    ],
)
def test_a_tool_that_measured_nothing_is_quoted(tool: Tool, text: str, words: str, code: int, failed: str) -> None:
    found = read(tool, text, words, code)
    assert found.failed == failed
    assert breaches(found, Thresholds()) == (failed,)


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    assert spread([float(number) for number in range(100, 0, -1)]) == Spread(1.0, 50.5, 100.0, 50.0, 95.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0, 7.0, 7.0)
    assert spread([]) is None
    assert jitter([1.0, 3.0, 2.0]) == 1.5
    assert jitter([1.0]) is None


GOOD = Figures(sent=100, received=99, loss=0.01, throughput=5e6, jitter_ms=2.0, latency=Spread(1, 10, 40, 9, 30))


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"min_throughput": "10M"}, "throughput 5.00 Mbit/s is below 10.00 Mbit/s"),
        ({"max_loss": 0.005}, "loss 1 % is above 0.5 %"),
        ({"max_jitter": "1ms"}, "jitter 2 ms is above 1 ms"),
        ({"max_latency": "5ms"}, "latency 10 ms is above 5 ms"),
        ({"max_p95": "20ms"}, "latency p95 30 ms is above 20 ms"),
        ({"max_retransmits": 3}, "None segments sent again is above 3"),
    ],
)
def test_a_breach_names_the_figure_and_its_bound(bounds: dict[str, Any], words: str) -> None:
    assert breaches(GOOD, Thresholds.model_validate(bounds)) == (words,)


def test_what_holds_exactly_holds() -> None:
    exact = {"min_throughput": "5M", "max_loss": 0.01, "max_jitter": "2ms", "max_latency": "10ms", "max_p95": "30ms"}
    assert breaches(GOOD, Thresholds.model_validate(exact)) == ()


def test_silence_is_a_breach_unless_it_is_allowed() -> None:
    silent = Figures(sent=3, received=0, loss=1.0, errors={"connection refused": 3})
    assert breaches(silent, Thresholds()) == ("nothing passed: connection refused 3 times",)
    assert breaches(silent, Thresholds(max_loss=1)) == ()
    angry = Figures(sent=2, received=0, loss=1.0, statuses={"503": 2})
    assert breaches(angry, Thresholds()) == ("nothing passed: status 503 2 times",)


def test_rates_are_told_in_fitting_units() -> None:
    assert [rate_words(value) for value in (12, 1500, 2.5e6, 1e10)] == [
        "12 bit/s", "1.50 kbit/s", "2.50 Mbit/s", "10.00 Gbit/s",
    ]  # fmt: skip


ALL = frozenset({"iperf3", "python3", "ping", "curl", "setsid", "flock", "timeout"})


@pytest.mark.parametrize(
    ("kind", "settings", "here", "there", "tool"),
    [
        ("iperf3", {}, ALL, ALL, Tool.IPERF3),
        ("iperf3", {}, ALL, {"python3"}, Tool.GENERATOR),
        ("iperf3", {"existing": True, "port": 5201}, {"iperf3"}, set(), Tool.IPERF3),
        ("http", {}, {"curl"}, {"python3"}, Tool.CURL),
        ("http", {}, {"curl", "python3"}, {"python3"}, Tool.GENERATOR),
        ("ping", {}, {"ping"}, set(), Tool.PING),
        ("snmp", {}, {"python3"}, set(), Tool.GENERATOR),
    ],
)
def test_the_tools_at_hand_decide(kind: str, settings: dict[str, Any], here: Any, there: Any, tool: Tool) -> None:
    assert tool_of(flow(kind, **settings), frozenset(here), frozenset(there)) is tool


@pytest.mark.parametrize(
    ("kind", "settings", "here", "there", "words"),
    [
        ("iperf3", {}, set(), ALL, "no iperf3 and no python3 on east"),
        ("iperf3", {}, {"iperf3"}, {"python3"}, "there is no iperf3 on west"),
        ("iperf3", {}, {"python3"}, {"iperf3"}, "there is no iperf3 on east"),
        ("iperf3", {}, ALL, set(), "no iperf3 and no python3 on west"),
        ("iperf3", {"existing": True, "port": 5201}, {"python3"}, set(), "there is no iperf3 on east"),
        ("iperf3", {"reverse": True, "protocol": "udp"}, ALL, {"python3"}, "no iperf3 on west"),
        ("udp", {}, ALL, {"iperf3"}, "no python3 on west"),
        ("http", {}, {"curl"}, {"curl"}, "no python3 on west"),
        ("http", {}, {"iperf3"}, {"python3"}, "no python3 and no curl on east"),
        ("http", {"to": {"address": "10.0.0.1"}}, set(), set(), "no python3 and no curl on east"),
        ("tcp", {"from": {"host": "east", "container": "r1"}}, set(), ALL, "no python3 in the container r1 on east"),
    ],
)
def test_a_missing_tool_is_named_with_its_end(kind: str, settings: Any, here: Any, there: Any, words: str) -> None:
    with pytest.raises(ToolMissingError, match=words):
        tool_of(flow(kind, **settings), frozenset(here), frozenset(there))


def test_iperf3_is_told_what_the_settings_say() -> None:
    wanted = flow("iperf3", protocol="udp", rate="8M", parallel=4, dscp=46, duration=2.5)
    argv = sender(wanted, Tool.IPERF3, "10.0.0.2", 47801).argv
    text = " ".join(argv)
    assert text.startswith("iperf3 -c 10.0.0.2 -p 47801 -t 3 --json -i 0")
    assert "-u -b 2000000 -l 1200 -P 4" in text
    assert text.endswith("-S 184")
    slow = sender(flow("iperf3", rate="100k"), Tool.IPERF3, "10.0.0.2", 47801).argv
    assert slow[slow.index("-l") + 1] == "625", "a slow stream is not sent in blocks of 128 KB"
    assert longest(wanted) > 3 + 5


def test_what_is_shipped_is_one_text_that_needs_nothing_of_skyspan() -> None:
    program = listener(flow("tcp"), Tool.GENERATOR, "10.0.0.2", 0.0)
    text = program.text.reveal()
    assert "import skyspan" not in text
    assert "from skyspan" not in text
    compile(text, "shipped", "exec")
    secret = flow("snmp", community="lab")
    assert "lab" not in " ".join(sender(secret, Tool.GENERATOR, "10.0.0.2", 161).argv)
    quoted = flow("http", path="/'+__import__('os').abort()+'")
    last = sender(quoted, Tool.GENERATOR, "10.0.0.2", 80).text.reveal().splitlines()[-1]
    compile(last, "shipped", "exec")
    assert '''"/'+__import__('os').abort()+'"''' in last, "a text stays a text"


def test_snmp_is_spoken_as_its_standard_says() -> None:
    # What snmpget -v2c -c public asks for sysUpTime.0, with request id 1.
    asked = bytes.fromhex("302602010104067075626c6963a019020101020100020100300e300c06082b060102010103000500")
    assert snmp.question(1, b"public", False, 1, (1, 3, 6, 1, 2, 1, 1, 3, 0)) == asked
    value = bytes.fromhex("302802010104067075626c6963a21b0201010201000201003010300e06082b0601020101030043023039")
    assert snmp.answer(value) == (1, 0, (1, 3, 6, 1, 2, 1, 1, 3, 0), 67)
    assert snmp.numbers_in(snmp.elements(snmp.oid_of((1, 3, 6, 1, 4, 1, 8072, 300000)))[0][1]) == (
        1, 3, 6, 1, 4, 1, 8072, 300000,
    )  # fmt: skip
    for cut in range(len(value)):
        with pytest.raises((ValueError, IndexError)):
            snmp.answer(value[:cut])


SURVEY = """@now
1700000100
@tools
iperf3
setsid
@docker
sudo -n docker
@container r1
running 172.20.20.2 
iperf3
@container r2
missing
Error: No such container: r2
!
@role voice.send
alive yes
digest abc
@window voice.send
 1700000090 1700000095 0
 
 sent 1
 rtt 1.5
 took 0.1

@role voice.listen
alive yes
alive no
digest def
port 47801
@said voice.listen
 listening on 47801
 Killed
"""  # noqa: W291, W293


def test_what_a_host_says_is_read() -> None:
    look = parse_survey(SURVEY)
    assert (look.now, look.docker) == (1700000100, "sudo -n docker")
    assert look.tools == {"iperf3", "setsid"}
    assert look.containers["r1"] == ContainerLook("running", ("172.20.20.2",), frozenset({"iperf3"}))
    assert look.containers["r2"] == ContainerLook("missing", trouble="Error: No such container: r2")
    window = Window(1700000090, 1700000095, "sent 1\nrtt 1.5\ntook 0.1\n")
    assert look.roles["voice.send"] == RoleLook(alive=True, digest="abc", window=window)
    assert look.roles["voice.listen"] == RoleLook(False, "def", 47801, None, "listening on 47801\nKilled")


@pytest.mark.parametrize("text", ["", "sudo: a password is required", "@now\n", "@now\nsoon\n"])
def test_a_host_that_says_something_else_is_not_believed(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse_survey(text)


def looks(now: int = 1700000100, window: Window | None = None, **alive: bool) -> dict[str | None, Look]:
    roles = {"voice.send": RoleLook(alive=alive.get("send", True), window=window)}
    there = {"voice.listen": RoleLook(alive=alive.get("listen", True), said="Killed")}
    return {"east": Look(now, roles=roles), "west": Look(now, roles=there)}


VOICE = flow("udp", mode="background", duration=5, thresholds={"max_loss": 0.1})
LAST = Window(1700000090, 1700000095, "sent 1\nrtt 1.5\nsent 1\nrtt 1.6\ntook 0.1\n")


def test_a_flow_in_the_background_is_judged_by_its_last_window() -> None:
    assert verdict("voice", VOICE, "python3", looks(window=LAST)).ok
    lossy = Window(1700000090, 1700000095, "sent 1\nrtt 1.5\nsent 1\ntook 0.1\n")
    assert verdict("voice", VOICE, "python3", looks(window=lossy)).wrong == ("loss 50 % is above 10 %",)
    late = verdict("voice", VOICE, "python3", looks(now=1700000200, window=LAST))
    assert late.wrong == ("its last window ended 105 s ago",)
    assert not verdict("voice", VOICE, "python3", looks(window=LAST), since=1700000091).ok, "it began before"
    assert verdict("voice", VOICE, "python3", looks()).wrong == ("no window yet",)


def test_what_does_not_run_is_drift_and_explains_the_figures() -> None:
    gone = verdict("voice", VOICE, "python3", looks(window=LAST, listen=False))
    assert [(item.address, item.note) for item in gone.gone] == [("west: server of voice", "does not run: Killed")]
    assert not gone.ok
    assert not gone.wrong


HOSTS = {name: Host(name, f"10.0.0.{number}") for number, name in enumerate(("east", "west"), 1)}
STAGE = DeploymentAddress("default", "proof").stage("traffic")


@pytest.mark.parametrize(
    ("look", "kind", "words"),
    [
        (Look(1, ALL, docker="absent"), ToolMissingError, "flow one: there is no docker on west"),
        (
            Look(1, ALL, docker="refused permission denied"),
            CredentialsError,
            "Docker on west does not answer this login",
        ),
        (Look(1, ALL, docker="docker"), NotReadyError, "the container r1 on west is missing"),
        (
            Look(1, ALL, docker="docker", containers={"r1": ContainerLook("exited")}),
            NotReadyError,
            "the container r1 on west is exited",
        ),
        (
            Look(1, ALL, docker="docker", containers={"r1": ContainerLook("running", trouble='exec: "sh": not found')}),
            ToolMissingError,
            "nothing can be run in the container r1 on west",
        ),
        (Look(1, ALL - {"setsid"}), ToolMissingError, "there is no setsid on west"),
    ],
)
def test_an_end_where_nothing_can_be_started_is_refused(look: Look, kind: type[StageError], words: str) -> None:
    to = {"host": "west"} | ({} if "setsid" in words else {"container": "r1"})
    with pytest.raises(kind, match=words) as refused:
        routed("one", flow("tcp", to=to), {"east": Look(1, ALL), "west": look}, HOSTS, STAGE)
    assert refused.value.hint


def test_traffic_goes_to_the_address_given_or_else_to_that_of_the_end() -> None:
    inside = Look(1, ALL, docker="docker", containers={"r1": ContainerLook("running", ("172.20.20.2",), ALL)})

    def address(**to: Any) -> str:
        ends: dict[str | None, Look] = {"east": Look(1, ALL), "west": inside}
        return routed("one", flow("tcp", to=to), ends, HOSTS, STAGE).address

    assert address(host="west") == "10.0.0.2"
    assert address(host="west", container="r1") == "172.20.20.2"
    assert address(host="west", container="r1", address="192.0.2.1") == "192.0.2.1"
