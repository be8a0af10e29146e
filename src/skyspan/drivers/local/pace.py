"""How often the local driver looks after its lease, its cancellation and its notes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """All in seconds. A lease of `lease_s` is renewed every `renew_s`; after a failed renewal again after `again_s`.

    Another process's request to cancel is looked for every `poll_s`. Notes wait at most `linger_s` for company.
    """

    lease_s: float = 30.0
    renew_s: float = 10.0
    again_s: float = 1.0
    poll_s: float = 0.5
    linger_s: float = 0.05

    @classmethod
    def for_lease(cls, lease_s: float) -> Pace:
        """The pace that goes with a lease of that length: a third of it between renewals, a tenth after a failure."""
        usual = cls()
        return cls(lease_s, min(usual.renew_s, lease_s / 3), min(usual.again_s, lease_s / 10))
