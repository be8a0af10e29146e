"""Makes a network namespace forget every connection that it tracks, as a NAT box does that was restarted.

Standard library only and run by path. Constants are those of <linux/netfilter/nfnetlink_conntrack.h>.
"""

from __future__ import annotations

import os
import socket
import struct

NETLINK_NETFILTER = 12
_SUBSYSTEM_CONNTRACK = 1
_DELETE = 2
_REQUEST_WITH_ANSWER = 0x1 | 0x4
_HEADER = struct.Struct("=IHHII")
_ABSENT = 2


def main() -> None:
    """Delete the whole table; raises OSError with the kernel's reason."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as kernel:
        kernel.bind((0, 0))
        body = struct.pack("!BBH", socket.AF_UNSPEC, 0, 0)
        kind = _SUBSYSTEM_CONNTRACK << 8 | _DELETE
        kernel.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_WITH_ANSWER, 1, 0) + body)
        (status,) = struct.unpack_from("=i", kernel.recv(4096), _HEADER.size)
        if status not in (0, -_ABSENT):
            raise OSError(-status, os.strerror(-status))


if __name__ == "__main__":
    main()
