"""A project beside what runs of it: differences, and what stands in the way (pure)."""

from __future__ import annotations

from collections.abc import Iterator

from skyspan.model.change import Action, ResourceChange
from skyspan.model.error import SpecError
from skyspan.providers.compose.project import Project, Service
from skyspan.providers.dockerengine.parse import DIGEST, Container, Look
from skyspan.providers.dockerengine.ready import judge
from skyspan.providers.dockerengine.refusing import refuse_absent_network, refuse_missing_images, whose

PROJECT = "com.docker.compose.project"
"""Compose's own label with the project's name."""

SERVICE = "com.docker.compose.service"
"""Compose's own label with the service's name."""

_ONE_OFF = "com.docker.compose.oneoff"


def containers_of(service: str, project: str, seen: Look) -> tuple[Container, ...]:
    """The containers of a service, without those of `docker compose run`."""
    return tuple(one for one in _of_project(project, seen) if one.labels.get(SERVICE) == service)


def _of_project(project: str, seen: Look) -> Iterator[Container]:
    for one in seen.containers:
        if one.labels.get(PROJECT) == project and one.labels.get(_ONE_OFF, "False") != "True":
            yield one


def strays(project: Project, seen: Look) -> tuple[Container, ...]:
    """The containers of services that the project does not have, or that are not asked for."""
    return tuple(one for one in _of_project(project.name, seen) if one.labels.get(SERVICE) not in project.services)


def differences(project: Project, seen: Look) -> tuple[ResourceChange, ...]:
    """What is not as the project says: networks, volumes, services."""
    return tuple(_differences(project, seen))


def _differences(project: Project, seen: Look) -> Iterator[ResourceChange]:
    for key, name in project.networks.items():
        if seen.network(name) is None:
            yield ResourceChange(f"network {key}", Action.CREATE)
    for key, name in project.volumes.items():
        if name not in seen.volumes:
            yield ResourceChange(f"volume {key}", Action.CREATE)
    for name, service in project.services.items():
        action, note = _service(service, containers_of(name, project.name, seen), seen)
        if action is not Action.NONE:
            yield ResourceChange(f"service {name}", action, note)
    for name in sorted({one.labels.get(SERVICE, one.name) for one in strays(project, seen)}):
        yield ResourceChange(f"service {name}", Action.DESTROY)


def _service(service: Service, there: tuple[Container, ...], seen: Look) -> tuple[Action, str]:
    if not there:
        return (Action.CREATE, service.image) if service.replicas else (Action.NONE, "")
    if any(one.labels.get(DIGEST) != service.digest for one in there):
        return Action.REPLACE, "its settings or files differ"
    image = seen.images.get(service.image, "")
    if image and any(one.image_id != image for one in there):
        return Action.REPLACE, f"{service.image} is another image now"
    if len(there) != service.replicas:
        return Action.UPDATE, f"{len(there)} containers instead of {service.replicas}"
    for one in there:
        found = judge(one, ends=service.ends)
        if not found.ready and one.health != "starting" and not (service.ends and one.state == "running"):
            return Action.UPDATE, found.reason
    return Action.NONE, ""


def refuse_others(project: str, owner: str, seen: Look, where: str) -> None:
    """Raise SpecError for a project of this name that is not the stage's."""
    for one in seen.containers:
        if one.labels.get(PROJECT) == project and one.owner != owner:
            raise SpecError(
                f"a Compose project called {project} is on {where} already, and belongs to {whose(one.owner)}",
                hint="give another `project`, or remove that one (docker compose -p NAME down)",
            )


def refuse_missing(project: Project, seen: Look, where: str, *, pull: str) -> None:
    """Raise StageError for networks that are said to be there and are not, and for images that will not be fetched."""
    for name in project.external:
        refuse_absent_network(name, seen, where)
    if pull == "never":
        refuse_missing_images((one for one in project.images if one not in project.built), seen, where)
