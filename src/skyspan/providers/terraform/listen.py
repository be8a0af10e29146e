"""Follows one command: its messages become log lines and progress, and what they say is collected."""

from __future__ import annotations

from collections.abc import Callable

from skyspan.contracts.context import Reporter
from skyspan.contracts.transport import Stream
from skyspan.model.change import Action
from skyspan.model.secret import Secret
from skyspan.providers.masking import mask_secrets
from skyspan.providers.terraform.failure import Sources, rendered
from skyspan.providers.terraform.parse import (
    Cutter,
    Diagnosis,
    Message,
    Moved,
    changed_outputs,
    diagnosis_of,
    dumped_state,
    planned_of,
    progress_of,
    protocol_of,
)

# Each resource would say it twice, or it tells nothing that is not shown elsewhere.
_UNTOLD = frozenset({"version", "refresh_complete", "outputs", "init_output_empty"})


class Listener:
    """Give `hear` to a transport as `on_output`; read the collected parts after `finish`."""

    def __init__(
        self,
        report: Reporter,
        sources: Sources,
        secrets: frozenset[Secret] = frozenset(),
        on_step: Callable[[Moved], None] = lambda _: None,
    ) -> None:
        self.planned: list[Moved] = []
        self.drifted: list[Moved] = []
        self.outputs: tuple[str, ...] = ()
        self.diagnoses: list[Diagnosis] = []
        self.protocol = ""
        self.dumped = b""
        self.begun: dict[str, Moved] = {}
        self.made: dict[str, Moved] = {}
        self._report = report
        self._sources = sources
        self._secrets = secrets
        self._on_step = on_step
        self._cutters = {Stream.OUT: Cutter(), Stream.ERR: Cutter()}

    def hear(self, stream: Stream, data: bytes) -> None:
        """Output of the command, at any split points."""
        for message in self._cutters[stream].feed(data):
            self._take(stream, message)

    def finish(self) -> None:
        """The command has ended."""
        for stream, cutter in self._cutters.items():
            for message in cutter.finish():
                self._take(stream, message)

    def _take(self, stream: Stream, message: Message) -> None:
        self.protocol = protocol_of(message) or self.protocol
        self.outputs = changed_outputs(message) or self.outputs
        self.dumped = dumped_state(message) or self.dumped
        if planned := planned_of(message):
            (self.planned if planned.state == "planned" else self.drifted).append(planned)
        if progress := progress_of(message):
            self._follow(progress)
            address, note = (mask_secrets(text, self._secrets) for text in (progress.address, progress.note))
            self._report.progress(address, progress.action.value, progress.state, note)
        if diagnosis := diagnosis_of(message):
            self._take_diagnosis(diagnosis)
        elif message.type not in _UNTOLD and message.level not in ("debug", "trace"):
            self._tell(message.text, Stream.ERR if stream is Stream.ERR or message.level == "error" else Stream.OUT)

    def _follow(self, step: Moved) -> None:
        """Keep apart what is being made and what has been: a tool that is killed may save neither."""
        self._on_step(step)
        if step.state == "started" and step.action in (Action.CREATE, Action.REPLACE):
            self.begun[step.address] = step
            return
        begun = self.begun.pop(step.address, None)
        if begun and step.state == "done" and begun.action is step.action:
            self.made[step.address] = step

    def _take_diagnosis(self, diagnosis: Diagnosis) -> None:
        self.diagnoses.append(diagnosis)
        self._tell(rendered(diagnosis, self._sources), Stream.ERR)

    def _tell(self, text: str, stream: Stream) -> None:
        for line in mask_secrets(text, self._secrets).splitlines():
            if line.strip():
                self._report.line(line.rstrip(), stream)
