"""Who can reach the bridge, with which secrets, how it reaches the models, and whom it tells: addresses, tunnel, admin
key, proxy, webhook."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from bridge.clock import Clock, iso
from bridge.limits import Limits, effective, summed
from bridge.ops.alerts import Rejected, body_of, format_of, send
from bridge.ops.doctor import Finding, fail, ok, warn
from bridge.settings import Settings

#: Where cloudflared looks for its configuration, among others.
TUNNELS = (
    Path("/etc/cloudflared/config.yml"),
    Path("/usr/local/etc/cloudflared/config.yml"),
    Path("~/.cloudflared/config.yml"),
)
#: Fewer characters, or fewer different ones, than a key that was drawn by chance would have.
_SHORT_KEY, _FEW_CHARACTERS = 24, 10


def check(settings: Settings, *, probe: bool) -> Iterator[Finding]:
    """What the outside can see and send. `probe` posts a test alert."""
    yield from _settings_file(settings)
    yield from _admin_key(settings)
    yield from _address(settings)
    yield from _tunnel(settings)
    yield from _way_to_models(settings)
    yield from _webhook(settings, probe)


def _settings_file(settings: Settings) -> Iterator[Finding]:
    path = Path(settings.env_file)
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        yield ok("settings", "from the environment alone")
        return
    if mode & 0o077:
        yield fail(
            "settings", f"others can read {path} (mode {mode:03o}), and it may hold API keys", f"chmod 600 {path}"
        )
    else:
        yield ok("settings", f"from the environment and {path}")


def _admin_key(settings: Settings) -> Iterator[Finding]:
    key = settings.admin_key
    if key is None:
        made = (settings.data_dir / "admin.json").exists()
        yield ok("admin key", "made by the bridge, kept as a hash" if made else "the first start makes one")
    elif len(key) < _SHORT_KEY or len(set(key)) < _FEW_CHARACTERS:
        todo = "Draw one by chance: openssl rand -hex 32; or leave BRIDGE_ADMIN_KEY out, and the bridge makes one."
        yield warn("admin key", f"from the settings; {len(key)} characters, which can be guessed", todo)
    else:
        yield ok("admin key", f"from the settings, {len(key)} characters")
    if not any(limit.is_cost for limit, _, _ in summed(effective(Limits(), settings.default_limits))):
        todo = "Set BRIDGE_DEFAULT_MAX_COST_PER_DAY."
        yield warn("default limits", "a key made without limits may spend without end", todo)


def _address(settings: Settings) -> Iterator[Finding]:
    if settings.socket is not None:
        yield ok("address", f"unix socket {settings.socket}")
    elif _is_loopback(settings.host):
        yield ok("address", f"{settings.host}:{settings.port}, this host only")
    else:
        todo = "The bridge speaks plain HTTP: listen on 127.0.0.1 and put a tunnel or a proxy with TLS in front."
        yield warn("address", f"{settings.host}:{settings.port}, reachable from outside", todo)
    if "*" in settings.cors_origins:
        yield warn("web pages", "every web page may call with a key it knows", "Name origins in BRIDGE_CORS_ORIGINS.")


def _tunnel(settings: Settings) -> Iterator[Finding]:
    local = settings.socket is not None or _is_loopback(settings.host)
    if settings.trusted_proxy != "none" and not local:
        yield fail(
            "proxy",
            f"BRIDGE_TRUSTED_PROXY={settings.trusted_proxy} is believed only from this host, but anybody can connect",
            "Set BRIDGE_HOST=127.0.0.1, so that only your own tunnel or proxy can.",
        )
    found = next(((path, text) for path in TUNNELS if (text := _read(path.expanduser())) is not None), None)
    if found is None:
        kind = {"none": "none", "cloudflare": "cloudflared, without a configuration file here"}
        yield ok("tunnel", kind.get(settings.trusted_proxy, settings.trusted_proxy))
        return
    path, text = found
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    services = re.findall(r"^\s*-?\s*service:\s*[\"']?([^\s\"'#]+)", text, re.MULTILINE)
    if not any(_leads_here(service, settings) for service in services):
        where = f"unix:{settings.socket}" if settings.socket else f"http://{settings.host}:{settings.port}"
        yield warn("tunnel", f"{path} does not lead to this bridge", f"Give a rule 'service: {where}'.")
    elif settings.trusted_proxy != "cloudflare":
        todo = "Set BRIDGE_TRUSTED_PROXY=cloudflare."
        yield warn("tunnel", f"{path} leads here, but to the bridge all clients have one address", todo)
    elif not _admin_is_guarded(text, settings):
        todo = "Guard it with Access: deploy/cloudflared/README.md shows the rule."
        yield warn("tunnel", f"{path} leads here; /admin is open to everyone with the admin key", todo)
    else:
        yield ok("tunnel", f"{path} leads here, with a rule of its own for /admin")


def _admin_is_guarded(text: str, settings: Settings) -> bool:
    """Whether a rule of its own for /admin stands before the one by which everything else comes here."""
    for rule in re.split(r"^\s*-\s+", text, flags=re.MULTILINE)[1:]:
        path = re.search(r"^\s*path:\s*[\"']?(.+?)[\"']?\s*$", rule, re.MULTILINE)
        service = re.search(r"^\s*service:\s*[\"']?([^\s\"'#]+)", rule, re.MULTILINE)
        if path is None:
            if service is not None and _leads_here(service[1], settings):
                return False
            continue
        try:
            if re.search(path[1], "/admin/"):
                return True
        except re.error:
            continue
    return False


def _leads_here(service: str, settings: Settings) -> bool:
    if settings.socket is not None:
        return service == f"unix:{settings.socket}"
    parts = urlsplit(service)
    return parts.scheme == "http" and parts.port == settings.port and _is_loopback(parts.hostname or "")


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _way_to_models(settings: Settings) -> Iterator[Finding]:
    for variable in ("HTTPS_PROXY", "HTTP_PROXY"):
        if proxy := settings.network.get(variable):
            login, _, place = urlsplit(proxy).netloc.rpartition("@")
            without = ", ".join((*settings.no_proxy, "this host"))
            yield ok(variable, f"{place}{', with a user' if login else ''}; reached without it: {without}")
    for what in filter(None, (settings.certificates, settings.certificate_folder)):
        yield ok("certificates", f"those in {what}, in the place of the system's")
    for sentence in settings.unheeded:
        variable, _, found = sentence.partition(" ")
        yield warn(variable, found, "Unset it for the bridge, or set what holds instead: docs/configuration.md.")


def _webhook(settings: Settings, probe: bool) -> Iterator[Finding]:
    url = settings.alert_webhook
    if url is None:
        yield ok("alerts", "to the log and the overview; BRIDGE_ALERT_WEBHOOK would send them to you")
        return
    parts, shape = urlsplit(url), format_of(url, settings.alert_format)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        yield warn("alerts", f"posted to {parts.hostname} without TLS", "Use https:// for BRIDGE_ALERT_WEBHOOK.")
    else:
        yield ok("alerts", f"posted to {parts.hostname} as {shape}")
    if probe:
        test = {
            "kind": "test",
            "subject": "doctor",
            "message": "This is a test, sent by 'cli-bridge doctor --probe'.",
            "at": iso(Clock().now()),
        }
        try:
            send(url, body_of(test, shape))
            yield ok("test alert", "taken")
        except Rejected as error:
            yield fail("test alert", f"not taken: {error}", "Check BRIDGE_ALERT_WEBHOOK.")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
