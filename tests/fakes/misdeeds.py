"""What the fake CLIs do wrong when a prompt tells them to: `[[fake NAME]]` or `[[fake NAME key=value]]`.

Shared by both fakes, which import it as a sibling. Standard library only, and quick to import.
"""

import json
import os
import re
import signal
import sys
import time

_DIRECTIVE = re.compile(r"\[\[fake ([a-z_]+)((?: [a-z_]+=[^\]\s]*)*)\]\]")
FOREVER_S = 3600


class Directives(dict):
    """Name -> options of every directive in a text; `text` is what remains without them."""

    def __init__(self, text):
        super().__init__()
        for name, options in _DIRECTIVE.findall(text):
            self[name] = dict(option.split("=", 1) for option in options.split())
        self.text = _DIRECTIVE.sub("", text).strip()

    def number(self, name, option, default):
        """A numeric option of a directive that may be absent."""
        return float(self.get(name, {}).get(option, default))


def raw(data):
    """Bytes on stdout, whatever they are."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def broken(library):
    """What the loader says where a library is missing; then the program never begins. Its exit status."""
    problem = "cannot open shared object file: No such file or directory"
    print(f"{sys.argv[0]}: error while loading shared libraries: {library}: {problem}", file=sys.stderr)
    return 127


def at_the_start(boot):
    """What goes wrong before any line is read: exit, complain, flood, hang, ignore_sigterm, or nothing."""
    if boot == "complain":
        print("warning: an old system", file=sys.stderr)
        print("Error: no sandbox for sk-ant-made-up, sk-made-up or cb_somebody_1234 at all", file=sys.stderr)
    if boot == "flood":
        sys.stderr.write("word " * 200_000 + "\n" + "line\n" * 200_000 + "the end\n")
    if boot in ("exit", "complain", "flood"):
        sys.exit(1)
    if boot == "hang":
        time.sleep(FOREVER_S)
    if boot == "ignore_sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def before_the_answer(directives):
    """The misdeeds that happen when the prompt has been read and nothing has been answered."""
    if "ignore_sigterm" in directives:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "grandchild" in directives:
        _sleep_in_a_child(leave_group=False)
    if "daemon" in directives:
        _sleep_in_a_child(leave_group=True)
    if "forks" in directives:
        for _ in range(int(directives.number("forks", "count", 50))):
            _sleep_in_a_child(leave_group=False)
    if "memory" in directives:
        kept = b"x" * int(directives.number("memory", "megabytes", 200) * 2**20)
        time.sleep(FOREVER_S + len(kept) % 2)
    if "stderr_flood" in directives:
        for _ in range(int(directives.number("stderr_flood", "megabytes", 5))):
            sys.stderr.buffer.write((b"E" * 99 + b"\n") * 10_000)
        sys.stderr.buffer.flush()
    if "stdout_flood" in directives:
        for _ in range(int(directives.number("stdout_flood", "megabytes", 20))):
            raw((b"not json " * 11 + b"\n") * 10_000)
    if "long_line" in directives:
        raw(b'{"type":"system","padding":"' + b"x" * 2**20 + b'"}\n')
    if "endless_line" in directives:
        raw(b"x" * (20 * 2**20))
        time.sleep(FOREVER_S)
    if "binary" in directives:
        raw(bytes(range(256)) * 64 + b"\n")
    if "deep" in directives:
        raw(b"[" * 100_000 + b"\n")
    if "hang" in directives:
        time.sleep(FOREVER_S)
    if "exit" in directives:
        os._exit(int(directives.number("exit", "code", 3)))


def in_the_middle(directives):
    """The misdeeds that happen when half of the answer is out."""
    if "garbage" in directives:
        raw(b'half a thought\n{"type":\n[1,2,3]\nnull\n"text"\n\n{"type":"nobody knows"}\n')
    if "half_line" in directives:
        raw(b'{"type":"result","is_err')
        os._exit(0)
    if "exit_midway" in directives:
        os._exit(int(directives.number("exit_midway", "code", 3)))
    if "hang_midway" in directives:
        time.sleep(FOREVER_S)


def report():
    """What the process can see of the host, as text of an answer."""
    with open("/proc/self/environ", "rb") as file:
        pairs = [pair.partition("=") for pair in file.read().decode().split("\0") if pair]
    descriptors = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            descriptors[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            pass
    home = os.environ.get("HOME", "")
    seen = {
        "env": {name: value for name, _, value in pairs},
        "cwd": os.getcwd(),
        "cwd_files": os.listdir("."),
        "home_files": sorted(os.listdir(home)) if os.path.isdir(home) else None,
        "home_mode": oct(os.stat(home).st_mode & 0o777) if os.path.isdir(home) else None,
        "argv": sys.argv[1:],
        "fds": descriptors,
        "pid": os.getpid(),
        "pgid": os.getpgid(0),
        "sid": os.getsid(0),
    }
    return json.dumps(seen)


def _sleep_in_a_child(leave_group):
    """A child that holds stdout open and ignores SIGTERM; one that leaves the group does as daemons do."""
    if os.fork():
        return
    if leave_group:
        os.setsid()
        if os.fork():
            os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(FOREVER_S)
    os._exit(0)
