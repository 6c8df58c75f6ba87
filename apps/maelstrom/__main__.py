"""``python -m apps.maelstrom NODE [--data DIR] [--seed TEXT]``: a process of ours as a Maelstrom binary.

Exit status, as in sysexits.h: 0 when standard input ends, 64 for a wrong command line, 65 for what a process must not
go on with, 73 for a log that cannot be used.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from apps.journal import JournalError
from apps.maelstrom.driver import Driver
from apps.maelstrom.nodes import NODES
from apps.process import Halt


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(os.EX_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str]) -> int:
    parser = _Parser("splitbrain maelstrom", description="Run a node of ours as a Maelstrom binary.")
    parser.add_argument("node", choices=NODES, help="what runs")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep its log there; without, nothing is on disk")
    parser.add_argument("--seed", default=secrets.token_hex(8), help="for all it draws; another one for every start")
    asked = parser.parse_args(arguments)
    driver = Driver(asked.node, NODES[asked.node](), asked.seed, asked.data)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # who listens no more ends us without a word
    try:
        driver.run(sys.stdin.fileno(), sys.stdout.fileno())
    except Halt as halt:
        print(halt, file=sys.stderr)
        return os.EX_DATAERR
    except JournalError as error:
        print(error, file=sys.stderr)
        return os.EX_CANTCREAT
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return os.EX_CANTCREAT
    except KeyboardInterrupt:
        return os.EX_OK
    finally:
        driver.close()
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
