"""What a service's memory costs: what is made anew and what is looked through again and again."""

import ctypes
import gc

# mallopt(3): no allocation below this gets pages of its own, and the heap's end is trimmed only above it.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 256 * 1024 * 1024
# Objects made before the youngest are looked at: a flush's messages live until it is acknowledged and have no cycles.
_GARBAGE = 10_000


def keep_freed_memory() -> bool:
    """Ask the allocator to keep up to KEPT_BYTES of what is freed; false where it cannot be asked.

    A judged round of 5,000 nodes makes and drops hundreds of arrays of a megabyte or two. glibc takes such from the
    kernel one by one and gives them back when dropped, and every page of the next is then zeroed and mapped anew: five
    times the time of the sums themselves (measured: 27 ms a round, 9 ms with memory kept). Elsewhere than on glibc
    nothing is done.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # The kernel's own limit for the threshold is 32 MiB on 64 bits; a larger one is refused by glibc.
    return bool(mallopt(_M_MMAP_THRESHOLD, 32 * 1024 * 1024) and mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))


def settle() -> None:
    """Take what the imports have made out of the garbage collector's sight, since it stays. Once all is imported.

    Looking through all of it was a sixth of the sink's CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE)
