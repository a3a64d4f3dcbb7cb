"""What a reader of figures has to know of the machine."""

import os
import platform


def machine() -> str:
    """The machine's shape: what a reader needs to compare, and nothing that names it."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} CPUs, {memory_gib:.0f} GiB, {platform.system()} {platform.release().split('-')[0]}, "
        f"{platform.machine()}, Python {platform.python_version()}"
    )
