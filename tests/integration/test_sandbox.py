"""A sandbox does what its client asks, and whatever ends either of them, nothing of it remains.

The deaths are played in an arena, itself a sandbox: in there, nobody else's processes, links and mounts come and go, so
what is there before and after a death can be compared exactly.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest

from topologies.privileges import obstacles, probe
from topologies.sandbox import Sandbox, SandboxError

pytestmark = pytest.mark.network

Start = Callable[..., Sandbox]
T = TypeVar("T")


class RefusalError(Exception):
    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class TwoPartError(Exception):
    """Its constructor's shape makes it one that pickle cannot rebuild."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


class Echo:
    def __init__(self, name: str = "echo", emit: Callable[[Any], None] | None = None) -> None:
        if name == "":
            raise RefusalError("a name is needed")
        self.name = name
        self.emit = emit

    def say(self, *words: str, end: str = ".") -> str:
        return " ".join((self.name, *words)) + end

    async def sleep(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    async def cancellation(self, folder: str) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            Path(folder, "cancelled").touch()
            raise

    def refuse(self, error: Exception) -> None:
        raise error

    def refuse_in_two_parts(self) -> None:
        raise TwoPartError("no", "because")

    def unpicklable(self) -> Any:
        return threading.Lock()

    def count_to(self, limit: int) -> None:
        assert self.emit is not None
        for number in range(limit):
            self.emit(number)

    def surroundings(self) -> dict[str, Any]:
        with tempfile.NamedTemporaryFile() as file:
            temporary = file.name
        return {
            "links": [name for _, name in socket.if_nameindex()],
            "hostname": socket.gethostname(),
            "processes": _processes(),
            "run": sorted(os.listdir("/run")),
            "sys": os.listdir("/sys/class/net"),
            "cgroups": os.path.ismount("/sys/fs/cgroup"),
            "temporary": temporary,
            "threads": len(os.listdir("/proc/self/task")),
            "pid": os.getpid(),
        }

    def serve(self, text: str) -> None:
        """Make a device and listen on a port of names and numbers that others use too."""
        subprocess.run(["ip", "link", "add", "same0", "type", "veth", "peer", "name", "same1"], check=True)
        self.listener = socket.create_server(("127.0.0.1", 4242))
        Path("/run/text").write_text(text)

    def served(self) -> str:
        return Path("/run/text").read_text()

    async def threads_after_a_child(self) -> int:
        child = await asyncio.create_subprocess_exec("true")
        await child.wait()
        return len(os.listdir("/proc/self/task"))

    def exit(self, status: int) -> None:
        os._exit(status)

    def shout(self) -> None:
        print("to the log", flush=True)


def name_and(service: Echo, more: str) -> str:
    return service.name + more


async def name_later(service: Echo) -> str:
    await asyncio.sleep(0)
    return service.name


def test_methods_plain_and_async_answer_with_arguments_of_both_kinds(sandbox: Start) -> None:
    started = sandbox(Echo, "parrot")
    assert started.call_sync("say", "a", "word", end="!") == "parrot a word!"
    assert started.call_sync("sleep", 0.0) == 0.0


def test_any_importable_function_runs_inside_with_the_service(sandbox: Start) -> None:
    started = sandbox(Echo, "parrot")
    assert started.run_sync(name_and, "s") == "parrots"
    assert started.run_sync(name_later) == "parrot"


def test_a_function_that_cannot_be_imported_is_refused_by_name(sandbox: Start) -> None:
    with pytest.raises(SandboxError, match="<lambda> cannot be sent"):
        sandbox(Echo).run_sync(lambda service: service.name)


def test_the_sandbox_has_only_its_own_network_processes_and_temporary_files(sandbox: Start) -> None:
    inside = sandbox(Echo).call_sync("surroundings")
    assert inside["links"] == inside["sys"] == ["lo"]
    assert inside["hostname"] == "splitbrain"
    assert inside["processes"] == {1, inside["pid"]}
    assert inside["run"] == ["tmp"]
    assert inside["cgroups"] == os.path.ismount("/sys/fs/cgroup")
    assert inside["temporary"].startswith("/run/tmp/")


def test_the_worker_has_one_thread_even_after_running_a_program(sandbox: Start) -> None:
    started = sandbox(Echo)
    assert started.call_sync("surroundings")["threads"] == 1
    assert started.call_sync("threads_after_a_child") == 1


def test_an_exception_crosses_as_what_it_is_and_its_traceback_stays_in_the_log(sandbox: Start, tmp_path: Path) -> None:
    started = sandbox(Echo)
    with pytest.raises(RefusalError) as caught:
        started.call_sync("refuse", RefusalError("not today"))
    assert caught.value.what == "not today"
    assert "Traceback" in (tmp_path / "sandbox-0" / "sandbox.log").read_text()


@pytest.mark.parametrize(
    ("method", "args", "text"),
    [
        ("refuse_in_two_parts", (), "TwoPartError: no: because"),
        ("refuse", (StopIteration("done"),), "StopIteration: done"),
        ("unpicklable", (), "a result of type lock cannot leave the sandbox"),
    ],
)
def test_what_cannot_cross_is_quoted(sandbox: Start, method: str, args: tuple[Any, ...], text: str) -> None:
    with pytest.raises(SandboxError, match=text):
        sandbox(Echo).call_sync(method, *args)


def test_a_constructor_that_refuses_is_heard_outside(sandbox: Start) -> None:
    with pytest.raises(RefusalError, match="a name is needed"):
        sandbox(Echo, "")


def test_what_is_printed_inside_goes_to_the_log(sandbox: Start, tmp_path: Path) -> None:
    sandbox(Echo).call_sync("shout")
    assert "to the log" in (tmp_path / "sandbox-0" / "sandbox.log").read_text()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=f"{tmp_path}/absent/sandbox.log cannot be written"):
        Sandbox(Echo, out=tmp_path / "absent").__enter__()


def test_events_arrive_in_order_in_the_loop_that_entered() -> None:
    async def scenario() -> list[int]:
        heard: list[int] = []
        threads = set()

        def hear(number: int) -> None:
            heard.append(number)
            threads.add(threading.get_ident())

        async with Sandbox(Echo, on_event=hear) as started:
            await started.call("count_to", 100)
        assert threads == {threading.get_ident()}
        return heard

    assert asyncio.run(scenario()) == list(range(100))


def test_calls_that_wait_do_not_wait_for_each_other() -> None:
    async def scenario() -> tuple[list[float], float]:
        async with Sandbox(Echo) as started:
            begun = time.monotonic()
            answers = await asyncio.gather(*(started.call("sleep", 0.5) for _ in range(20)))
            return answers, time.monotonic() - begun

    answers, took = asyncio.run(scenario())
    assert answers == [0.5] * 20
    assert took < 5


def test_cancelling_a_call_cancels_it_inside(tmp_path: Path) -> None:
    async def scenario() -> str:
        async with Sandbox(Echo) as started:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(started.call("cancellation", str(tmp_path)), 0.2)
            return await started.call("say")  # answered after the cancellation, which was sent before

    assert asyncio.run(scenario()) == "echo."
    assert (tmp_path / "cancelled").exists()


def test_a_threaded_program_may_start_sandboxes_and_call_them_from_any_thread() -> None:
    def play(number: int) -> str:
        with Sandbox(Echo, f"e{number}") as started, ThreadPoolExecutor(4) as pool:
            return "".join(pool.map(lambda word: started.call_sync("say", word), "abcd"))

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(play, range(3))) == [f"e{n} a.e{n} b.e{n} c.e{n} d." for n in range(3)]


def test_three_sandboxes_side_by_side_share_no_names_ports_or_files(sandbox: Start) -> None:
    started = [sandbox(Echo) for _ in range(3)]
    for number, one in enumerate(started):
        one.call_sync("serve", str(number))
    assert [one.call_sync("served") for one in started] == ["0", "1", "2"]


def test_after_its_end_a_sandbox_says_why_it_does_not_answer(sandbox: Start) -> None:
    started = sandbox(Echo)
    with pytest.raises(SandboxError, match="exited with status 3"):
        started.call_sync("exit", 3)
    with pytest.raises(SandboxError, match="exited with status 3"):
        started.call_sync("say")
    closed = sandbox(Echo)
    closed.close()
    with pytest.raises(SandboxError, match="closed"):
        closed.call_sync("say")


# What an ordinary user meets. Root with every other capability dropped is refused what they are refused, wherever
# the checkout lies; CAP_SETFCAP is what lets it map its own id, 0, as they map theirs (user_namespaces(7)).

AS_USER = ["setpriv", "--inh-caps=-all", "--bounding-set=-all,+setfcap"]


class OrdinaryUser:
    """Runs as the root of a user namespace, and may so change its limits."""

    def uid_outside(self) -> int:
        return int(Path("/proc/self/uid_map").read_text().split()[1])

    def without_user_namespaces(self) -> str:
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        return _play_as_user("say", "hello")


def _play_as_user(method: str, *args: str, service: str = "Echo") -> str:
    """Call ``method`` of a new sandbox in a program that may do no more than an ordinary user."""
    program = (
        "import sys; sys.path[:] = sys.argv[1].split(':')\n"
        "from topologies.sandbox import Sandbox, SandboxError\n"
        "import test_sandbox\n"
        "try:\n"
        f"    with Sandbox(test_sandbox.{service}) as started: print(started.call_sync(*sys.argv[2:]))\n"
        "except SandboxError as error: print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", program, ":".join(sys.path), method, *args]
    return subprocess.run([*AS_USER, *command], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def user_namespaces() -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root with setpriv can put off capabilities")
    attempt = [*AS_USER, "unshare", "--user", "--map-root-user", "true"]
    if subprocess.run(attempt, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("this machine lets no ordinary user make namespaces")


@pytest.mark.usefixtures("user_namespaces")
def test_an_ordinary_user_gets_a_sandbox_in_a_user_namespace() -> None:
    assert _play_as_user("say", "hello") == "echo hello."


@pytest.mark.usefixtures("user_namespaces")
def test_a_user_without_user_namespaces_is_told_which_switch_is_off() -> None:
    answer = _play_as_user("without_user_namespaces", service="OrdinaryUser")
    assert answer.startswith("PrivilegeError user namespaces are off")
    assert "sysctl user.max_user_namespaces" in answer


def test_whoever_may_not_open_tun_is_told_how_to_change_that() -> None:
    answer, question = os.pipe()
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        os.write(question, "; ".join(obstacles(probe(), tun=True)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    open_to_all = os.stat("/dev/net/tun").st_mode & 0o006 == 0o006
    os.close(question)
    with open(answer) as said:
        assert ("chmod 0666 /dev/net/tun" in said.read()) == (not open_to_all and os.geteuid() == 0)


# Deaths.


class Litterer:
    """Leaves behind whatever a kernel object can be left behind as, and then does not answer any more."""

    def litter(self) -> None:
        for command in (
            "ip netns add orphan",
            "ip link add litter0 type veth peer name litter1 netns orphan",
            "mkdir -p /run/deep && mount -t tmpfs tmpfs /run/deep && touch /run/deep/file",
            "setsid sleep 1000 >/dev/null 2>&1 &",
            "(trap '' TERM INT HUP; exec ip netns exec orphan sleep 1000) >/dev/null 2>&1 &",
        ):
            subprocess.run(command, shell=True, check=True)
        tempfile.mkstemp()
        Path("/proc/self/comm").write_text("littered")
        time.sleep(1000)


class Arena:
    """Where deaths are played, from inside a sandbox of its own."""

    def play(self, victim: str, delay: float | None, forks: bool = False) -> list[str]:
        """Start a client with a sandbox, kill ``victim`` after ``delay`` seconds, return what is left of it.

        A ``delay`` of ``None`` lasts until the sandbox is full of litter and its worker answers no more.

        Victims: the ``client``, the process ``outside`` that it started, that one's child ``pid1``, and that one's
        child ``worker``. With ``forks`` the client has a child, forked and not executed, that outlives it.
        """
        before = _snapshot()
        client = os.fork()
        if client == 0:
            _be_client(forks)
        if delay is None:
            _wait_for(lambda: _named("littered"))
        else:
            time.sleep(delay)
        generation = ["client", "outside", "pid1", "worker"].index(victim)
        # Not there yet: it dies as young as can be.
        os.kill(_wait_for(lambda: _descendant(client, generation)), signal.SIGKILL)
        os.waitpid(client, 0)  # the client of a sandbox that died hears of it and goes
        if forks:
            before |= {f"process {child}" for child in _named("survivor")}
        with suppress(TimeoutError):
            _wait_for(lambda: _snapshot() == before)
        left = _snapshot() ^ before
        for survivor in _named("survivor"):
            os.kill(survivor, signal.SIGKILL)
        return sorted(left)


def _be_client(forks: bool) -> NoReturn:
    try:
        with Sandbox(Litterer) as sandbox:
            if forks and os.fork() == 0:
                Path("/proc/self/comm").write_text("survivor")
                time.sleep(1000)
            sandbox.call_sync("litter")
    except SandboxError:
        pass
    finally:
        os._exit(0)


def _wait_for(question: Callable[[], T | None]) -> T:
    """Ask until the answer counts as true, and return it."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        answer = question()
        if answer:
            return answer
    raise TimeoutError


def _processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def _named(name: str) -> list[int]:
    found = []
    for pid in _processes():
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(pid)
        except OSError:
            continue
    return found


def _descendant(pid: int, generation: int) -> int | None:
    """The oldest child of the oldest child …, where it is there already; a forked survivor is not counted."""
    for _ in range(generation):
        try:
            children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            return None
        if not children:
            return None
        pid = children[0]
    return pid


def _snapshot() -> set[str]:
    """Everything that a sandbox might leave in this namespace."""
    found = {f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    found |= {f"link {name}" for _, name in socket.if_nameindex()}
    found |= {f"file {path}" for path in Path("/run").rglob("*")}
    for pid in _processes():
        found.add(f"process {pid}")
        try:
            found |= {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "mnt", "pid", "ipc", "uts", "user")}
        except OSError:
            continue
    return found


MOMENTS = random.Random(2)


@pytest.mark.parametrize("victim", ["client", "outside", "pid1", "worker"])
def test_nothing_is_left_whoever_is_killed_and_whenever(sandbox: Start, victim: str) -> None:
    arena = sandbox(Arena)
    # Python, the namespaces and the import of asyncio take some 0.1 s; the litter is made in the next 0.1 s.
    for delay in [0.0, *(MOMENTS.uniform(0, 0.3) for _ in range(7)), None]:
        assert arena.call_sync("play", victim, delay) == [], f"killed {victim} after {delay} s"


def test_a_child_that_the_client_forked_does_not_keep_the_sandbox_alive(sandbox: Start) -> None:
    assert sandbox(Arena).call_sync("play", "client", None, forks=True) == []
