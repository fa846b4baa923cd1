"""Where this bridge came from, a git checkout or a copy of one, and what the remote of that has which is newer.

`python -m bridge.ops.origin CHECKOUT WAY` prints the note that deploy/install.sh leaves beside the program. The remote
is only asked, with `git ls-remote`: nothing is fetched, and nothing updates itself.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

import bridge
from bridge.clock import iso
from bridge.providers.programs import BridgeNews
from bridge.sandbox.child import ChildError, capture, program
from bridge.settings import Settings

#: Longest that git may take to read a checkout, and a remote to answer, in seconds.
READ_S, ASK_S = 10.0, 60.0
#: How a bridge that came in one of these ways is upgraded.
WAYS = {
    "checkout": "In its checkout: git pull, then start it again.",
    "installer": "In the checkout that it was installed from: git pull, then sudo deploy/install.sh.",
    "image": "In a checkout: git pull, then build the image again (deploy/docker/README.md).",
}
#: A note is longer only where it is none.
_NOTE_BYTES = 4096
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_NUMBER = re.compile(r"\d+")
_RELEASE = re.compile(r"refs/tags/v(\d{1,6})\.(\d{1,6})\.(\d{1,6})")
#: host:path or user@host:path, which git takes for ssh
_BY_SSH = re.compile(r"[^/:]+:(?!:)")
#: helper::address, for which git runs any program
_BY_HELPER = re.compile(r"[^/]*::")
#: What of the bridge's own environment git gets to know: the keys of ssh, and who has called sudo.
_KNOWN = ("PATH", "HOME", "SSH_AUTH_SOCK", "SUDO_UID")


class NotKnown(Exception):
    """Nothing newer can be known; why, as a part of a sentence."""


class Origin(msgspec.Struct, frozen=True):
    """The remote of a checkout, without a password, the commit that the bridge is of, and its way, one of WAYS."""

    remote: str
    commit: str
    way: str


def find() -> Origin:
    """Where this bridge came from: as its note says, else as the checkout says that it runs from. Raises NotKnown."""
    noted = None
    try:
        with open(Path(sys.prefix) / "origin.json", "rb") as file:
            note = file.read(_NOTE_BYTES)
        # The installer leaves an empty one where it was not started from a checkout.
        noted = msgspec.json.decode(note, type=Origin) if note else None
    except FileNotFoundError:
        pass
    except (OSError, ValueError):
        raise NotKnown("the note of where it came from, origin.json, cannot be read") from None
    if noted is None:
        return of_checkout(Path(bridge.__file__).resolve().parents[1], "checkout")
    if noted.way not in WAYS or not _COMMIT.fullmatch(noted.commit):
        raise NotKnown("the note of where it came from, origin.json, names no commit")
    return Origin(_address(noted.remote), noted.commit, noted.way)


def of_checkout(folder: Path, way: str) -> Origin:
    """What a checkout says of itself. Raises NotKnown."""
    if not (folder / ".git").exists():
        raise NotKnown("it did not come from a git checkout")
    remote = _git(["-C", str(folder), "config", "--get", "remote.origin.url"], READ_S, "its checkout has no origin")
    commit = _git(["-C", str(folder), "rev-parse", "--verify", "HEAD"], READ_S, "git cannot read its checkout")
    return Origin(_address(remote.strip(), folder), commit.strip(), way)


def _address(remote: str, folder: Path = Path("/")) -> str:
    """A remote's address, without what is secret in it. Raises NotKnown where it is none of https, ssh or a file."""
    if "://" not in remote:
        if _BY_SSH.match(remote):
            return remote
        if remote and not _BY_HELPER.match(remote):
            return str(folder / remote)
    else:
        try:
            parts = urlsplit(remote)
        except ValueError:
            parts = urlsplit("")
        host = parts.netloc.rpartition("@")[2]
        user = parts.netloc.rpartition("@")[0].partition(":")[0]
        if parts.scheme == "https":
            return parts._replace(netloc=host, query="", fragment="").geturl()
        if parts.scheme == "ssh":
            return parts._replace(netloc=f"{user}@{host}" if user else host).geturl()
        if parts.scheme == "file":
            return remote
    raise NotKnown("the address of its remote begins with neither https:// nor ssh://, and is no file")


def look(settings: Settings, before: BridgeNews | None, now: float) -> BridgeNews:
    """What is known of newer bridges at `now`, in UTC seconds: the remote is asked. Where it cannot be, what was known
    `before` of this very bridge stays."""
    known = BridgeNews(now)
    try:
        origin = find()
        runs = f"{bridge.__version__} {origin.commit}"
        if before is not None and before.runs == runs:
            known = before
        newest, news = _news(origin, _refs(origin.remote, settings))
        return BridgeNews(now, runs, newest, news)
    except NotKnown as error:
        return msgspec.structs.replace(known, problem=str(error))


def _news(origin: Origin, refs: Mapping[str, str]) -> tuple[str, str | None]:
    """The newest release (a tag such as v1.2.3) among `refs`, or where there is none the commit of the default branch;
    and, where that is newer than this bridge, what is to be said of it. Raises NotKnown."""
    own = bridge.__version__
    releases = [tuple(map(int, found.groups())) for found in map(_RELEASE.fullmatch, refs) if found]
    if releases:
        newest, newer = ".".join(map(str, max(releases))), max(releases) > tuple(map(int, _NUMBER.findall(own)[:3]))
        said = f"cli-bridge {newest} is out; {own} runs here."
    elif head := refs.get("HEAD"):
        newest, newer = head[:10], head != origin.commit
        said = f"The default branch of cli-bridge is at {newest}; {origin.commit[:10]} runs here."
    else:
        raise NotKnown("its remote has neither a release nor a default branch")
    return newest, f"{said} {WAYS[origin.way]}" if newer else None


def sentence(settings: Settings, found: BridgeNews | None) -> str:
    """What is to be said of what was found of newer bridges."""
    if not settings.update_check:
        return "Nobody asks whether a newer cli-bridge is out: BRIDGE_UPDATE_CHECK is off."
    if found is None:
        return "Whether a newer cli-bridge is out, the service has not asked yet."
    if found.problem is not None and found.news is None:
        return f"Whether a newer cli-bridge is out, is not known: {found.problem}."
    return found.news or f"No newer cli-bridge was out at {iso(found.at)}."


def _refs(remote: str, settings: Settings) -> dict[str, str]:
    """Releases and default branch of a remote: what each is called -> its commit. Raises NotKnown."""
    # No helper of git is asked for a password, and nobody is: what wants one is not known.
    argv = ["-c", "credential.helper=", "ls-remote", "--", remote, "HEAD", "refs/tags/v*"]
    env = dict(settings.network)
    if settings.certificates:
        env["GIT_SSL_CAINFO"] = settings.certificates
    found = {}
    for line in _git(argv, ASK_S, "its remote does not answer, or wants a password", env).splitlines():
        commit, _, name = line.partition("\t")
        if _COMMIT.fullmatch(commit):
            found[name] = commit
    return found


def _git(arguments: Sequence[str], timeout_s: float, trouble: str, more: dict[str, str] | None = None) -> str:
    """What git prints. Raises NotKnown, with `trouble` where it fails."""
    git = program("git")
    if git is None:
        raise NotKnown("git is not installed")
    env = {name: os.environ[name] for name in _KNOWN if name in os.environ}
    env |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "GIT_ALLOW_PROTOCOL": "https:ssh:file"}
    try:
        # In a folder of its own, because git reads the settings of a checkout around it.
        with tempfile.TemporaryDirectory() as folder:
            env["GIT_CEILING_DIRECTORIES"] = str(Path(folder).parent)
            done = capture([git, *arguments], env={**env, **(more or {})}, cwd=Path(folder), timeout_s=timeout_s)
    except ChildError as error:
        raise NotKnown(f"git cannot be run: {error}") from None
    except OSError as error:
        raise NotKnown(f"git cannot be run in a folder of its own: {error.strerror}") from None
    if done.status is None:
        raise NotKnown(f"{trouble}: git took longer than {timeout_s:g} seconds")
    if done.status != 0:
        raise NotKnown(trouble)
    return done.output


if __name__ == "__main__":
    try:
        print(msgspec.json.encode(of_checkout(Path(sys.argv[1]), sys.argv[2])).decode())
    except NotKnown as error:
        print(f"of newer versions nothing will be known: {error}", file=sys.stderr)
