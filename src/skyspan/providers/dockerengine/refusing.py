"""Refuses what stands in the way on a daemon before anything is touched, in the same words for every kind of stage."""

from __future__ import annotations

from collections.abc import Iterable

from skyspan.model.error import NotReadyError, SpecError
from skyspan.providers.dockerengine.parse import Look


def whose(owner: str) -> str:
    """Whose something is that is not the stage's, by the label that it has."""
    return f"stage {owner}" if owner else "somebody else"


def refuse_missing_images(images: Iterable[str], seen: Look, where: str) -> None:
    """Raise SpecError for images that are not there and will not be fetched."""
    missing = [image for image in images if not seen.images.get(image)]
    if missing:
        raise SpecError(
            f"no image {', '.join(missing)} on {where}, and `pull: never` keeps it from being fetched",
            hint="load it there (docker load, docker import), have it built (`build`), or let it be fetched with "
            "`pull: missing`",
        )


def refuse_absent_network(name: str, seen: Look, where: str) -> None:
    """Raise NotReadyError for a network that is said to be there and is not."""
    if seen.network(name) is None:
        raise NotReadyError(
            f"the external network {name} is not on {where}", hint="make it, or `needs` the stage that does"
        )
