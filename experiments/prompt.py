"""The shell's prompt, as it runs inside a sandbox: Mininet's, with the commands that break the network.

Called by the sandbox's worker on the terminal that `experiments.shell` handed in.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import readline
import select
import signal
import sys
import termios
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from fnmatch import fnmatchcase
from types import FrameType
from typing import Any, TypeVar

import msgspec
from mininet.cli import CLI
from mininet.log import lg

from experiments.emulation.inside import Inside
from experiments.nemesis import complete_grudge
from experiments.path import Flow, observe
from experiments.report import words
from experiments.scenario import links
from experiments.shell_words import (
    WordError,
    complete_hosts,
    complete_impair,
    complete_link,
    complete_partition,
    parse_flow,
    parse_impair,
    parse_partition,
)

T = TypeVar("T")

#: How long what breaks, and whether it did, is probed for: 200 ms.
_PROBING_NS = 400_000_000


class Terminal(msgspec.Struct, frozen=True):
    """File descriptors that are open in the sandbox too. A byte on ``interrupts`` stands for Ctrl-C."""

    input: int
    output: int
    errors: int
    interrupts: int


def converse(inside: Inside, terminal: Terminal) -> None:
    """Prompt until the person leaves. Nothing else happens in the worker meanwhile, as in any Mininet script."""
    with _on(terminal), _interrupted_by(terminal.interrupts):
        for handler in lg.handlers:
            handler.setStream(sys.stdout)
        Prompt(inside)


class Prompt(CLI):
    """Mininet's prompt on a living fabric. Constructing it prompts, as Mininet's own does, until the person leaves."""

    readlineInited = True  # noqa: N815 - Mininet's name; its set-up writes a history file into the home directory

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._plan = inside.plan
        self._in_force: dict[int, tuple[str, list[int]]] = {}
        self._last = 0
        readline.set_completer_delims(" \t\n,")
        self.prompt = "splitbrain> " if sys.stdin.isatty() else ""
        super().__init__(inside.fabric, stdin=sys.stdin)

    # ---- what breaks, and what heals -------------------------------------------------------------------------------

    def do_partition(self, line: str) -> None:
        """partition h1 h2 | h5 h6: hosts of different groups do not hear each other; one group alone: nor anyone else.

        The leaves drop their packets; hosts in no group go on reaching everyone. Heal it with `heal`."""
        groups = parse_partition(self._plan, line)
        self._struck("partition " + " | ".join(map(" ".join, groups)), [self._inside.drop(complete_grudge(groups))])

    def complete_partition(self, text: str, line: str, *_: int) -> list[str]:
        return complete_partition(self._plan, text, line)

    def do_cut(self, line: str) -> None:
        """cut leaf1-spine1 …: these links, or all that match (leaf1-*), lose their carrier at both ends."""
        names = links(self._plan, line.split())
        if not names:
            raise WordError("say which link: cut leaf1-spine1, or all that match: cut leaf1-spine*")
        self._struck(f"cut {' '.join(names)}", self._all(names, self._inside.cut))

    def complete_cut(self, text: str, *_: Any) -> list[str]:
        return complete_link(self._plan, text)

    def do_impair(self, line: str) -> None:
        """impair leaf1>spine1 delay=20ms jitter=5ms loss=10%: what happens to packets in that direction.

        A link's name (leaf1-spine1) means both directions; also duplicate=, reorder=, corrupt=, burst=, rate=100mbit,
        queue=, distribution=uniform|normal|pareto. Impairments of one direction cover each other; `heal` uncovers."""
        ways, impairment = parse_impair(self._plan, line)
        phrase = words.impairment(msgspec.to_builtins(impairment))
        handles = self._all(ways, lambda way: self._inside.impair(way, impairment))
        self._struck(f"impair {' '.join(ways)}: {phrase}", handles)

    def complete_impair(self, text: str, *_: Any) -> list[str]:
        return complete_impair(self._plan, text)

    def do_heal(self, line: str) -> None:
        """heal: undo everything that is in force; heal 2: only what has that number (see `faults`)."""
        wanted = line.split() or [str(number) for number in self._in_force]
        unknown = [word for word in wanted if not word.isdecimal() or int(word) not in self._in_force]
        if unknown:
            numbers = ", ".join(map(str, self._in_force)) or "nothing"
            raise WordError(f"nothing in force has the number {unknown[0]}; in force is {numbers}")
        for number in sorted({int(word) for word in wanted}, reverse=True):
            what, handles = self._in_force.pop(number)
            for handle in reversed(handles):
                self._inside.lift(handle)
            _say(f"healed {number}: {what}")

    def complete_heal(self, text: str, *_: Any) -> list[str]:
        return [str(number) for number in self._in_force if str(number).startswith(text)]

    def do_faults(self, _line: str) -> None:
        """faults: what is broken at the moment, by number."""
        for number, (what, _) in self._in_force.items():
            _say(f"{number}: {what}")
        if not self._in_force:
            _say("nothing is broken")

    # ---- what is to be seen ----------------------------------------------------------------------------------------

    def do_links(self, line: str) -> None:
        """links [leaf1-*]: the carrier of links, and what each direction carried and does to packets."""
        names = links(self._plan, line.split() or ["*"])
        carrier, counters = self._inside.carrier(names), self._inside.fabric.link_counters()
        impaired = self._inside.impairments.in_force()
        width = max(map(len, names))
        for name in names:
            for number, way in enumerate(self._plan.link(name).directions):
                state = "" if number else name
                mark = "" if number else "up" if carrier[name] else "DOWN"
                does = words.impairment(msgspec.to_builtins(impaired[way])) if way in impaired else ""
                counted = f"{counters[way].packets:>9,} packets {counters[way].bytes:>13,} bytes"
                _say(f"{state:<{width}} {mark:<4}  {way:<{width}} {counted}  {does}".rstrip())

    def complete_links(self, text: str, *_: Any) -> list[str]:
        return complete_link(self._plan, text)

    def do_reach(self, line: str) -> None:
        """reach [h1 h5 …]: who hears whom, measured by probes; rows receive, columns send. All hosts if none is named,
        or all that match (h1*), members of tenants included (*_blue)."""
        known = [endpoint.name for endpoint in self._plan.endpoints]
        patterns = line.split() or [host.name for host in self._plan.hosts]
        for name in patterns:
            if not any(fnmatchcase(one, name) for one in known):
                self._plan.endpoint(name)
        hosts = [one for one in known if any(fnmatchcase(one, name) for name in patterns)]
        measured = _finished(self._inside.matrix({host: host for host in hosts}, _PROBING_NS))
        width = max(*map(len, hosts), len("yes")) + 1
        _say(" " * width + "".join(f"{sender:>{width}}" for sender in hosts))
        for receiver in hosts:
            cells = ["·" if sender == receiver else _cell(*measured[receiver][sender]) for sender in hosts]
            _say(f"{receiver:<{width}}" + "".join(f"{cell:>{width}}" for cell in cells))

    def complete_reach(self, text: str, *_: Any) -> list[str]:
        return complete_hosts(self._plan, text)

    def do_path(self, line: str) -> None:
        """path h1 h5 udp 40000 7000: which way that flow takes now, seen by sending it.

        After the hosts come the protocol, source and destination port. Nothing else may cross the fabric meanwhile."""
        way = observe(self._inside, Flow(*parse_flow(self._plan, line)))
        _say(f"{' > '.join(way.nodes)}  ({way.how}: {way.why})")

    def complete_path(self, text: str, *_: Any) -> list[str]:
        return complete_hosts(self._plan, text) + [word for word in ("udp", "tcp") if word.startswith(text)]

    # ---- Mininet's ways, mended ------------------------------------------------------------------------------------

    def onecmd(self, line: str) -> Any:
        """Whatever a command raises is said, and the prompt comes back."""
        try:
            return super().onecmd(line)
        except Exception as error:
            _say(
                f"*** {error}"
                if isinstance(error, ValueError | RuntimeError)
                else f"*** {type(error).__name__}: {error}"
            )
            return None

    def complete(self, text: str, state: int) -> str | None:
        """As `cmd.Cmd` does; a word that is whole is followed by a space, as in any shell."""
        found: str | None = super().complete(text, state)
        return found + " " if found and len(self.completion_matches) == 1 and not found.endswith("=") else found

    def completenames(self, text: str, *ignored: Any) -> list[str]:
        """Commands, and nodes to give a command to."""
        found: list[str] = super().completenames(text, *ignored)
        return found + [name for name in self.mn if name.startswith(text)]

    def completedefault(self, text: str, *_: Any) -> list[str]:
        return [name for name in self.mn if name.startswith(text)]

    def waitForNode(self, node: Any) -> None:  # noqa: N802 - Mininet's name
        """Show what a node's command prints until it ends. Keys go to it, as they come; Ctrl-C ends it.

        Mininet's own would also feed it the rest of a script that comes by a pipe.
        """
        keys = sys.stdin.fileno()
        typed = self.isatty()
        poller = select.poll()
        poller.register(node.stdout, select.POLLIN)
        if typed:
            poller.register(keys, select.POLLIN)
        with _key_by_key(keys) if typed else nullcontext():
            while node.waiting:
                try:
                    ready = [fd for fd, _ in poller.poll()]
                    if keys in ready:
                        node.write(os.read(keys, 1024).decode(errors="replace"))
                    if len(ready) > (keys in ready):
                        sys.stdout.write(node.monitor())
                        sys.stdout.flush()
                except KeyboardInterrupt:
                    node.sendInt()

    def _struck(self, what: str, handles: list[int]) -> None:
        self._last += 1
        self._in_force[self._last] = what, handles
        _say(f"{self._last}: {what}")

    def _all(self, names: list[str], strike: Callable[[str], int]) -> list[int]:
        """Strike each, or none if one of them fails."""
        handles: list[int] = []
        try:
            handles.extend(strike(name) for name in names)
        except BaseException:
            for handle in reversed(handles):
                self._inside.lift(handle)
            raise
        return handles


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _cell(sent: int, arrived: int) -> str:
    return "yes" if arrived == sent else f"{arrived}/{sent}" if arrived else "-"


def _finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``. This thread's event loop waits for the prompt to end, so another one does it."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@contextmanager
def _on(terminal: Terminal) -> Iterator[None]:
    """Have the person's terminal for standard input, output and error, as readline and every child expect it."""
    kept = [os.dup(fd) for fd in (0, 1, 2)]
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        for fd, theirs in enumerate((terminal.input, terminal.output, terminal.errors)):
            os.dup2(theirs, fd)
        with ExitStack() as stack:
            sys.stdin = stack.enter_context(open(0, closefd=False))
            sys.stdout, sys.stderr = (stack.enter_context(open(fd, "w", buffering=1, closefd=False)) for fd in (1, 2))
            yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
        for fd, old in enumerate(kept):
            os.dup2(old, fd)
            os.close(old)


@contextmanager
def _interrupted_by(fd: int) -> Iterator[None]:
    """Raise KeyboardInterrupt here for every byte that comes on ``fd``.

    The terminal does not signal us: it controls the client's session, and we are in another one, in another pid
    namespace. So the client gets its Ctrl-C, and writes a byte, upon which the kernel signals us (F_SETOWN, fcntl(2)).
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        with suppress(BlockingIOError):
            if os.read(fd, 4096):
                raise KeyboardInterrupt

    before = signal.signal(signal.SIGIO, interrupt)
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | fcntl.FASYNC | os.O_NONBLOCK)
    try:
        yield
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
        signal.signal(signal.SIGIO, before)


@contextmanager
def _key_by_key(fd: int) -> Iterator[None]:
    """Read keys as they are pressed, not line by line (termios(3), noncanonical mode)."""
    before = termios.tcgetattr(fd)
    now = termios.tcgetattr(fd)
    now[3] &= ~termios.ICANON
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, now)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
