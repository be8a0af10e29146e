"""Owns whether a host's SSH key is the right one, and what to tell when it is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyspan.contracts.host import Host
from skyspan.model.error import HostKeyError


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """What a host's key may be: keys, keys of certificate authorities, and revoked ones; `source` says where from."""

    keys: tuple[Any, ...]
    authorities: tuple[Any, ...]
    revoked: tuple[Any, ...]
    source: str

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The signature algorithms to ask the server for: those of the known keys first, so that it shows that key.

        Empty, which means the library's choice, when certificates may come."""
        import asyncssh.public_key

        if self.authorities:
            return ()
        known = [name for key in self.keys for name in key.sig_algorithms]
        every = [*known, *asyncssh.public_key.get_default_public_key_algs()]
        return tuple(dict.fromkeys(name.decode() for name in every))


def trusted_keys(host: Host, user_known_hosts: Path | None) -> TrustedKeys:
    """The keys to accept: the one pinned in the composition, else those in `known_hosts` (its own, then the user's).

    Raises HostKeyError when what is written there cannot be read.
    """
    import asyncssh

    if host.host_key is not None:
        try:
            return TrustedKeys((_pinned(host.host_key),), (), (), f"`host_key` of {host.name}")
        except (asyncssh.KeyImportError, ValueError, IndexError) as error:
            raise HostKeyError(
                f"`host_key` of {host.name} is no SSH public key: {error}",
                hint="write it as in /etc/ssh/ssh_host_ed25519_key.pub: `ssh-ed25519 AAAA…`",
            ) from error
    path = Path(host.known_hosts) if host.known_hosts is not None else user_known_hosts
    if path is None or not path.exists():
        return TrustedKeys((), (), (), str(path or "known_hosts"))
    try:
        known = asyncssh.read_known_hosts(str(path))
        found = asyncssh.match_known_hosts(known, host.address, "", host.port)
    except (OSError, ValueError) as error:
        raise HostKeyError(
            f"cannot read the host keys in {path}: {error}", hint="correct or remove that line"
        ) from error
    return TrustedKeys(tuple(found[0]), tuple(found[1]), tuple(found[2]), str(path))


def refusal(host: Host, trusted: TrustedKeys, offered: Any) -> HostKeyError:
    """The error for a key that is not trusted: unknown, or, much worse, not the one that was known."""
    line = offered.export_public_key().decode().strip()
    line = " ".join(line.split()[:2])
    where = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
    shown = f"it shows {line.split()[0]} {offered.get_fingerprint()}"
    if trusted.keys:
        expected = ", ".join(key.get_fingerprint() for key in trusted.keys)
        return HostKeyError(
            f"THE HOST KEY OF {host.name} ({where}) HAS CHANGED: somebody may be intercepting the connection",
            detail=f"{shown}\nexpected {expected} ({trusted.source})",
            hint=f"if the machine was really set up anew, verify its fingerprint on its console and replace the key in "
            f"{trusted.source} by:\n{line if host.host_key is not None else f'{where} {line}'}",
        )
    return HostKeyError(
        f"the host key of {host.name} ({where}) is unknown",
        detail=shown,
        hint="verify that fingerprint on the machine's console (`ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub`), then "
        f"accept the key, either in skyspan.yaml under hosts.{host.name}:\n"
        f'  host_key: "{line}"\n'
        f"or by this line in {trusted.source}:\n"
        f"  {where} {line}",
    )


def _pinned(text: str) -> Any:
    """The key in `ssh-ed25519 AAAA… comment`, also when a host stands before it, as `ssh-keyscan` prints it."""
    import asyncssh

    words = text.split()
    start = next((index for index in range(len(words) - 1) if words[index + 1].startswith("AAAA")), 0)
    return asyncssh.import_public_key(" ".join(words[start : start + 2]))
