"""python -m dashboards [--check]: writes json/ and provisioning/ from the boards, or says what is not current."""

import argparse
import sys
from pathlib import Path

from dashboards import alerts
from dashboards.boards.all_boards import BOARDS
from dashboards.build import to_json

HERE = Path(__file__).parent


def files() -> dict[Path, str]:
    """Every file and its text."""
    boards = {HERE / "json" / f"{board.uid}.json": to_json(board) for board in BOARDS}
    return boards | {
        HERE / "provisioning" / "datasources" / "kpatrol.yaml": alerts.source_yaml(),
        HERE / "provisioning" / "dashboards" / "kpatrol.yaml": alerts.provider_yaml(),
        HERE / "provisioning" / "alerting" / "kpatrol.yaml": alerts.rules_yaml(),
    }


def stale() -> list[str]:
    """Files that are not what the boards say, and JSON that no board makes."""
    wanted = files()
    wrong = [p for p, text in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    return sorted(str(p.relative_to(HERE)) for p in [*wrong, *(set((HERE / "json").glob("*.json")) - set(wanted))])


def main() -> int:
    """0 done or current; 1 with --check when something is not."""
    parser = argparse.ArgumentParser(prog="python -m dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    if parser.parse_args().check:
        found = stale()
        print("\n".join(f"not current: {name}" for name in found) or "current")
        return int(bool(found))
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
