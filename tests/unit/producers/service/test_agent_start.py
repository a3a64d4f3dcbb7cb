"""How an agent starts: what it has no need of must stay out of its memory."""

import subprocess
import sys


def test_nothing_heavy_is_imported_before_it_can_be_kept_out() -> None:
    script = "import producers.__main__, sys; print(sorted({'pyarrow', 'numpy', 'pandas'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", _PATHS + script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


_PATHS = f"import sys; sys.path[:0] = {sys.path!r}; "
