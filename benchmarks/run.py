"""`make bench`: every figure that the README quotes but those of the senses, measured here and now.

python -m benchmarks.run [checking] [giants] [step] [memory] [paper_counts] [adapters] [editor] [serving]
"""

from __future__ import annotations

import importlib
import sys

from rich.console import Console
from rich.table import Table

NAMES = ("checking", "giants", "step", "memory", "paper_counts", "adapters", "editor", "serving")


def main(chosen: list[str]) -> int:
    """Run the chosen benchmarks, all by default, and print one table."""
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        print(f"there is no benchmark {unknown[0]}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    table = Table("what", "measured", "target")
    for name in chosen or NAMES:
        with Console(stderr=True).status(name):
            for row in importlib.import_module(f"benchmarks.{name}").rows():
                table.add_row(*row)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
