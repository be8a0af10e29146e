"""What is done on a lab's host: looking, netlab's commands, and errors that say what failed there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.contracts.transport import Command, Completed, Stream
from skyspan.model.error import SpecError, StageError, ToolFailedError
from skyspan.model.value import secrets_in
from skyspan.providers.lab.containers import LAB_LABEL, HostLook, look_command, read_look
from skyspan.providers.masking import mask_secrets
from skyspan.providers.netlab import clabfile, commands
from skyspan.providers.netlab.commands import Place
from skyspan.providers.netlab.compare import refitted
from skyspan.providers.netlab.failure import failed, no_image
from skyspan.providers.netlab.memory import Made
from skyspan.providers.netlab.package import Package
from skyspan.providers.netlab.parse import Survey, parse_made, parse_survey, parse_validation
from skyspan.providers.netlab.spec import NetlabSpec

_CREATING = "creating the lab's files"


@dataclass(frozen=True, slots=True)
class Scene:
    """A look at the host: the stage's folder, and containers. With `networks`, of all labs."""

    survey: Survey
    look: HostLook


class LabHost:
    """The host of one stage's lab, for one verb. What it reports and raises shows no secret of the settings."""

    def __init__(self, spec: NetlabSpec, host: str | None, ctx: ReadContext) -> None:
        self.spec = spec
        self.host = host
        self._ctx = ctx
        self._secrets = secrets_in(spec.topology)

    @property
    def where(self) -> str:
        """The host for people."""
        return self.host or "this machine"

    async def scene(self, place: Place, *, networks: bool = False, docker: bool = True) -> Scene:
        """Look at the folder and at the containers, at once."""
        label = LAB_LABEL if networks else f"{LAB_LABEL}={place.name}"
        place_there = self._ctx.places.reach(self.host)
        if not docker:
            return Scene(self._survey(await place_there.query(commands.look(self.spec, place))), HostLook())
        looked, containers = await asyncio.gather(
            place_there.query(commands.look(self.spec, place)),
            place_there.query(look_command(label, networks=networks)),
        )
        survey = self._survey(looked)
        if "docker" in survey.missing:
            return Scene(survey, HostLook())
        return Scene(survey, read_look(containers, self.where))

    def _survey(self, done: Completed) -> Survey:
        if not done.ok:
            raise self._failed(done, "looking at the lab's folder", Place("", "", 0, ""))
        try:
            return parse_survey(done.text())
        except (ValueError, KeyError) as error:
            raise ToolFailedError(
                f"what {self.where} says of the lab's folder cannot be read",
                detail=f"{type(error).__name__}: {error}",
            ) from error

    async def trial(self, place: Place, package: Package) -> Made:
        """What netlab would make of the files; nothing of it stays."""
        command = commands.trial(self.spec, place, package)
        done = await self._ctx.places.reach(self.host).query(command)
        return self._made(done, place)

    async def create(self, place: Place, package: Package, known: Made | None, ctx: StageContext) -> Made:
        """Have netlab make its files in the lab's folder. What it makes of them is asked for unless `known`."""
        ctx.report.line(f"create: {place.name} (netlab's number {place.number}) in {place.folder} on {self.where}")
        command = commands.create(self.spec, place, package.topology, told=known is None)
        done = await self._run(command, ctx, quiet=True)
        if known is None:
            return self._made(done, place)
        self._require(done, _CREATING, place)
        return known

    def _made(self, done: Completed, place: Place) -> Made:
        if not done.ok:
            raise self._failed(done, _CREATING, place)
        for line in done.stderr.decode(errors="replace").splitlines():
            if line.startswith(("Warning in ", "... ")):
                self._ctx.report.line(mask_secrets(line, self._secrets), Stream.ERR)
        made = parse_made(done.text())
        if made.facts.provider not in ("clab", "external"):
            raise SpecError(
                f"the topology is for netlab's provider {made.facts.provider}",
                hint="set `provider: clab` to have its devices in containers",
            )
        if made.facts.provider != "clab":
            return replace(made, clab="")
        devices = {name: str(node["device"]) for name, node in made.facts.nodes.items()}
        clab = clabfile.adapted(made.clab, self.spec, place.number, devices)
        images = clabfile.images(clab)
        bare = [name for name in made.facts.containers() if images.get(name, "none") == "none"]
        if bare:
            raise SpecError(
                f"netlab knows no container image for {', '.join(f'{name} ({devices[name]})' for name in bare)}",
                hint=f"name one: `images: {{{devices[bare[0]]}: IMAGE}}`",
            )
        return replace(made, clab=clab)

    async def require_images(self, place: Place, made: Made) -> None:
        """Raise SpecError naming images that the host lacks, unless they are to be fetched."""
        if not made.clab or self.spec.pull:
            return
        images = tuple(dict.fromkeys(clabfile.images(made.clab).values()))
        done = await self._ctx.places.reach(self.host).query(commands.missing_images(self.spec, place, images))
        self._require(done, "looking for the lab's images", place)
        if done.text().strip():
            raise no_image(done.text().split(), self.where)

    async def claim(self, place: Place, ctx: StageContext) -> int:
        """Mark the place as ours; the exit status says what is taken."""
        done = await self._run(commands.claim(self.spec, place), ctx, quiet=True)
        words = done.last_words()
        if done.exit_code == commands.FOREIGN:
            raise SpecError(f"{place.folder} on {self.where} is another stage's", detail=words)
        if done.exit_code == commands.NAME_TAKEN:
            raise SpecError(
                f"the lab's name {place.name} begins like another lab's on {self.where}",
                detail=words,
                hint="choose another `name`, or leave it out",
            )
        if done.exit_code == commands.NUMBER_TAKEN and self.spec.number:
            raise SpecError(f"netlab's lab number {place.number} is taken on {self.where}", detail=words)
        if done.exit_code in (commands.NUMBER_TAKEN, commands.NETWORK_TAKEN):
            return done.exit_code
        self._require(done, "claiming the lab's folder", place)
        return 0

    async def ship(self, place: Place, package: Package, ctx: StageContext) -> None:
        """Put the files in place."""
        ctx.report.line(f"ship: {len(package.files)} files to {self.where}")
        command = commands.ship(self.spec, place, package)
        self._require(await self._run(command, ctx, quiet=True), "sending the lab's files", place)

    async def up(self, place: Place, made: Made, ctx: StageContext) -> None:
        """Start and configure the lab."""
        ctx.report.line(f"up: {', '.join(made.facts.nodes)}")
        command = commands.up(self.spec, place, made.clab, external=made.facts.provider == "external")
        self._require(await self._run(command, ctx), "starting the lab", place)

    async def deploy(
        self, place: Place, made: Made, remade: tuple[str, ...], configured: tuple[str, ...], ctx: StageContext
    ) -> None:
        """Make some nodes anew in the running lab."""
        containers = made.facts.containers()
        ctx.report.line(f"repair: {', '.join(configured)}; the others are left alone")
        names = [containers[node] for node in remade]
        ends = [
            f"{containers[node]} {interface} {mtu} {'yes' if six else 'no'}"
            for node, interface, mtu, six in refitted(made.facts, configured)
        ]
        command = commands.deploy(self.spec, place, made.clab, names, configured, ends)
        self._require(await self._run(command, ctx), f"making {', '.join(configured)} anew", place)

    async def down(self, place: Place, made: Made | None, ctx: StageContext) -> None:
        """Take the lab down."""
        ctx.report.line(f"down: {place.name} on {self.where}")
        command = commands.down(self.spec, place, _bridges(made))
        self._require(await self._run(command, ctx), "taking the lab down", place)

    async def remove(self, place: Place, made: Made | None, ctx: StageContext) -> None:
        """Remove the lab and all its files."""
        ctx.report.line(f"remove: {place.name or place.key} on {self.where}")
        command = commands.remove(self.spec, place, _bridges(made))
        self._require(await self._run(command, ctx), "removing the lab", place)

    async def validate(self, place: Place, made: Made) -> dict[str, Any]:
        """Run the topology's tests: a report, whatever they say. Raises where they could not be run."""
        done = await self._ctx.places.reach(self.host).query(
            commands.validate(self.spec, place), self._ctx.report.output
        )
        result = commands.VALIDATION.get(done.exit_code)
        report = parse_validation(mask_secrets(done.text(), self._secrets), result or "", made.facts.tests)
        crashed = result == "failed" and not any(test["result"] == "failed" for test in report["tests"])
        if result is None or done.timed_out or crashed:
            raise self._failed(done, "validating the lab", place)
        return report

    async def _run(self, command: Command, ctx: StageContext, *, quiet: bool = False) -> Completed:
        return await ctx.places.reach(self.host).run(command, None if quiet else ctx.report.output)

    def _require(self, done: Completed, what: str, place: Place) -> None:
        if not done.ok:
            raise self._failed(done, what, place)

    def _failed(self, done: Completed, what: str, place: Place) -> StageError:
        topology = self.spec.topology if isinstance(self.spec.topology, str) else "the topology"
        return failed(done, what, self.where, topology, place.folder, self._secrets)


def _bridges(made: Made | None) -> tuple[str, ...]:
    return made.facts.bridges() if made is not None and made.clab else ()
