"""The embedded driver: performs the engine's decisions in this process."""

from skyspan.drivers.local.driver import LocalDriver
from skyspan.drivers.local.interrupted import Aim
from skyspan.drivers.local.pace import Pace

__all__ = ["Aim", "LocalDriver", "Pace"]
