"""The credentials: the secrets of providers that runs are paid with, and how each of them is doing.

`Credential` is what the admin has said, `Health` what has happened since. Both are values, and the state of a
credential is a pure function of them and of the time. Only the book below knows files: credentials.json has the
secrets, and is the only file that does; credential-states.json has the rest.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import gevent
import msgspec
from gevent.lock import BoundedSemaphore

from bridge.clock import Clock
from bridge.errors import BridgeError, StoreError
from bridge.keys.keys import NAME_PATTERN, check_name, invalid
from bridge.limits import BY_NAME, Limits, WrongLimit
from bridge.registry import PROVIDERS
from bridge.settings import ProviderSettings
from bridge.store.document import Document, Outdated
from bridge.store.files import unbroken

T = TypeVar("T")

Kind = Literal["api-key", "login"]
Source = Literal["file", "env"]
StateName = Literal["usable", "probing", "benched", "blocked", "disabled"]

#: The name of what the environment brings: an API key, or a CLI's own log-in. Each provider can have one.
DEFAULT = "default"
#: The limits that a credential can have.
CREDENTIAL_LIMITS = ("maxCostPerDay", "maxCostPerMonth")
#: More credentials than this are a mistake.
MOST = 1000
#: field of a body -> the least and the most of it: characters of a text, entries of a list, or the number itself
BOUNDS: Mapping[str, tuple[int, int]] = {
    "apiKey": (8, 4096),
    "baseUrl": (1, 500),
    "group": (0, 100),
    "priority": (-1000, 1000),
    "weight": (1, 1000),
    "maxConcurrent": (0, 10_000),
    "models": (0, 1000),
    "keys": (0, 1000),
    "note": (0, 500),
}

#: The first bench that nobody has told a time for, in seconds; it doubles up to the second.
FIRST_BENCH_S, LONGEST_BENCH_S = 20.0, 300.0
#: The shortest bench, whatever the provider says, in seconds: a run that waits for it must not go round and round.
SHORTEST_BENCH_S = 1.0
#: However long a provider says that a credential is limited: it is tried again after this, in seconds.
LONGEST_WAIT_S = 1800.0
#: How long a credential is blocked before it is tried again, in seconds.
BLOCK_S = 3600.0
#: How far a bench of the ladder may lie from its time, as a share: not all come back in the same moment.
JITTER = 0.2
#: Models of which it is kept that one is limited for them; so many at most, the newest.
MOST_MODELS = 20
#: Least time between two looks at the file, in seconds.
LOOK_S = 1.0

#: A pattern of models: a name in which a star stands for any characters.
MODELS_PATTERN = r"[A-Za-z0-9*][A-Za-z0-9._:/\[\]*-]{0,99}"
_NO_SECRET = "Its API key is missing: backups do not hold it. Give it again."

log = logging.getLogger("bridge")


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A secret of one provider, and who may spend with it."""

    #: what the ledger knows it by: it stays when the name changes
    id: str
    name: str
    provider: str
    kind: Kind = "api-key"
    #: "env": it comes from the environment; it can be disabled, and nothing else
    source: Source = "file"
    #: empty for a log-in, and where a backup has left it out
    secret: str = ""
    #: None: the endpoint of the settings
    base_url: str | None = None
    #: credentials of one organization share its limits, and so a group
    group: str = ""
    #: higher comes first with `fill-first`
    priority: int = 0
    #: its share beside others
    weight: int = 1
    #: runs at once; 0: as many as come
    max_concurrent: int = 0
    #: some of CREDENTIAL_LIMITS; not named: none
    limits: Limits = Limits()
    #: patterns of models (`claude-opus-*`), and names of keys; None: all
    models: tuple[str, ...] | None = None
    keys: tuple[str, ...] | None = None
    enabled: bool = True
    note: str = ""

    @property
    def last4(self) -> str:
        """The end of the secret, to recognise it by; nothing of a short one."""
        return self.secret[-4:] if len(self.secret) >= 12 else ""

    @property
    def digest(self) -> str:
        """What two credentials with the same secret share: SHA-256, hex."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    @property
    def mark(self) -> str:
        """By which another secret or endpoint is noticed: too short to tell anything of them."""
        return hashlib.sha256(f"{self.secret} {self.base_url or ''}".encode()).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"Credential({self.provider}/{self.name})"


def may_serve(credential: Credential, model: str, key_name: str, bound: tuple[str, ...] | None) -> bool:
    """Whether a run of that model and key may use a credential. `bound`: the credentials of the key; None: any."""
    if bound is not None and credential.name not in bound:
        return False
    if credential.keys is not None and key_name not in credential.keys:
        return False
    return credential.models is None or any(_fits(model, pattern) for pattern in credential.models)


def _fits(model: str, pattern: str) -> bool:
    return _pattern(pattern).fullmatch(model) is not None


@functools.lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    # Only the star means something: a model's name may hold brackets.
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.IGNORECASE)


# --- how it is doing ------------------------------------------------------------------------------


class Standing(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What has happened to a credential, as far as it still matters. Times are UTC seconds."""

    #: benches one after the other, without a success in between
    streak: int = 0
    benched_at: float | None = None
    benched_until: float | None = None
    #: whether the provider has named no time, so that the end of the bench is the bridge's own guess
    guessed: bool = False
    blocked_at: float | None = None
    #: when a blocked one is tried again
    probe_at: float | None = None
    #: why it is benched or blocked, in words for the admin
    reason: str = ""
    #: of which secret and endpoint all this is known; see `Credential.mark`
    mark: str = ""
    #: model -> the same for that model alone: limits of a rate are a model's
    models: dict[str, Standing] = {}


class State(msgspec.Struct, frozen=True):
    """How a credential is now. `until` (UTC seconds): when it is tried again; `guessed`: by the bridge's own guess."""

    name: StateName
    reason: str = ""
    until: float | None = None
    guessed: bool = False

    @property
    def open(self) -> bool:
        """Whether it may be tried now."""
        return self.name in ("usable", "probing")


def limited(
    before: Standing,
    now: float,
    retry_after_s: float | None,
    reason: str,
    chance: float = 0.5,
    model: str | None = None,
) -> Standing:
    """The provider limits its rate. `chance` (0 to 1) moves the end of a bench that has no time of its own. `model`:
    the one that the provider has named, so that it is limited for that alone.

    Failures of runs that were under way when the bench began do not make it longer, but a later time of the
    provider's does.
    """
    if model is not None:
        own = limited(before.models.get(model, Standing()), now, retry_after_s, reason, chance)
        others = [(name, each) for name, each in before.models.items() if name != model]
        return msgspec.structs.replace(before, models=dict([*others[1 - MOST_MODELS :], (model, own)]))
    benched = _bench_end(before, now) is not None
    streak = before.streak if benched else before.streak + 1
    began = before.benched_at if benched else now
    until, guessed = before.benched_until or 0.0, before.guessed
    if retry_after_s is not None and now + max(SHORTEST_BENCH_S, retry_after_s) >= until:
        until, guessed = now + max(SHORTEST_BENCH_S, retry_after_s), False
    elif not benched:
        pause_s = min(FIRST_BENCH_S * 2.0 ** min(streak - 1, 10), LONGEST_BENCH_S)
        guess = now + pause_s * (1 + JITTER * (2 * chance - 1))
        until, guessed = (guess, True) if guess >= until else (until, guessed)
    changes: dict[str, Any] = {"streak": streak, "benched_at": began, "benched_until": until, "guessed": guessed}
    # A block stays one: that an account is limited does not say that it can pay.
    return msgspec.structs.replace(before, **changes, reason=before.reason if before.blocked_at is not None else reason)


def rejected(before: Standing, now: float, reason: str) -> Standing:
    """The provider does not take it, or its account cannot pay: it is tried once an hour."""
    blocked_at = now if before.blocked_at is None else before.blocked_at
    return msgspec.structs.replace(before, blocked_at=blocked_at, probe_at=now + BLOCK_S, reason=reason)


def bare_name(model: str) -> str:
    """A model as its limits know it: without a date, and without the mark of a long context."""
    return re.sub(r"(\[\w+\])?$", "", re.sub(r"-(\d{8}|\d{4}-\d\d-\d\d)(?=\[|$)", "", model.lower()))


def state_of(credential: Credential, standing: Standing, now: float, model: str | None = None) -> State:
    """How a credential is at `now`: for all, or for a model."""
    state = _state_of(credential, standing, now)
    if model is None or not state.open or model not in standing.models:
        return state
    own = _state_of(credential, standing.models[model], now)
    return state if own.open else own


def _state_of(credential: Credential, standing: Standing, now: float) -> State:
    if not credential.enabled:
        return State("disabled")
    if credential.kind == "api-key" and not credential.secret:
        return State("blocked", _NO_SECRET)
    benched = _bench_end(standing, now)
    if standing.blocked_at is not None and standing.probe_at is not None:
        # A clock that was set back must not keep it out for longer than a block lasts.
        if now < standing.probe_at <= now + BLOCK_S:
            return State("blocked", standing.reason, standing.probe_at)
        return State("probing", standing.reason) if benched is None else State("blocked", standing.reason, benched)
    if benched is not None:
        return State("benched", standing.reason, benched, standing.guessed)
    return State("probing", standing.reason) if standing.benched_until is not None else State("usable")


def _bench_end(standing: Standing, now: float) -> float | None:
    """When a bench ends that holds now: at the time that was said, or the half-open try before it."""
    if standing.benched_at is None or standing.benched_until is None:
        return None
    until = min(standing.benched_until, standing.benched_at + LONGEST_WAIT_S)
    return until if standing.benched_at <= now < until else None


# --- what the admin may say -----------------------------------------------------------------------


def check_secret(value: Any) -> str:
    """A secret as it is sent, without blanks at its ends. Raises BridgeError invalid_request."""
    if not isinstance(value, str):
        raise invalid("apiKey", "is missing or not a text")
    secret = value.strip().strip("\ufeff\u200b")
    if not re.fullmatch(r"[!-~]+", secret):
        raise BridgeError(
            "invalid_request",
            "apiKey must be one word of letters, digits and signs, without spaces or line breaks inside.",
            "Copy the whole API key from the provider's console, and nothing else.",
            field="apiKey",
        )
    least, most = BOUNDS["apiKey"]
    if not least <= len(secret) <= most:
        raise invalid("apiKey", f"must have {least} to {most} characters")
    return secret


def check_base_url(value: Any) -> str | None:
    """An endpoint, without a slash at its end; plain HTTP only to this host. Raises BridgeError invalid_request."""
    if value is None:
        return None
    try:
        parts = urlsplit(value) if isinstance(value, str) and len(value) <= BOUNDS["baseUrl"][1] else None
        host = parts.hostname if parts is not None and parts.port != 0 else None
    except ValueError:
        host = parts = None
    if parts is None or not host or not re.fullmatch(r"[!-~]+", str(value)) or parts.scheme not in ("http", "https"):
        raise invalid("baseUrl", "must be a URL such as https://api.example.com, or null for the usual one")
    if parts.username is not None or parts.query or parts.fragment:
        raise invalid("baseUrl", "must have no user, no query and no fragment")
    if parts.scheme == "http" and not _is_loopback(host):
        raise invalid("baseUrl", "must begin with https://: plain HTTP would send the API key in the clear")
    return str(value).rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _whole_number(field: str) -> Callable[[Any], int]:
    least, most = BOUNDS[field]

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise invalid(field, f"must be a whole number from {least} to {most}")
        return value

    return check


def _text(field: str) -> Callable[[Any], str]:
    _, most = BOUNDS[field]

    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) > most or not value.isprintable():
            raise invalid(field, f"must be a text of at most {most} characters, on one line")
        return value

    return check


def _list(field: str, pattern: str, such_as: str) -> Callable[[Any], tuple[str, ...] | None]:
    _, most = BOUNDS[field]

    def check(value: Any) -> tuple[str, ...] | None:
        if value is None:
            return None
        known = isinstance(value, list | tuple) and len(value) <= most and all(isinstance(each, str) for each in value)
        if not known or not all(re.fullmatch(pattern, each) for each in value):
            raise invalid(field, f"must be a list of names such as {such_as}, or null for all")
        return tuple(value)

    return check


def _check_limits(value: Any) -> Limits:
    if not isinstance(value, Mapping):
        raise invalid("limits", f"must be an object with some of {', '.join(CREDENTIAL_LIMITS)}")
    if unknown := value.keys() - set(CREDENTIAL_LIMITS):
        raise invalid("limits", f"has no {min(map(str, unknown))[:60]!r}: it has {', '.join(CREDENTIAL_LIMITS)}")
    try:
        return Limits({name: BY_NAME[name].amount(value[name]) for name in value})
    except WrongLimit as error:
        raise BridgeError("invalid_request", str(error), field="limits") from None


#: field of a Credential -> what makes a value of a body one of its own; raises BridgeError invalid_request
CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "secret": check_secret,
    "base_url": check_base_url,
    "group": _text("group"),
    "priority": _whole_number("priority"),
    "weight": _whole_number("weight"),
    "max_concurrent": _whole_number("maxConcurrent"),
    "limits": _check_limits,
    "models": _list("models", MODELS_PATTERN, "claude-opus-*"),
    "keys": _list("keys", NAME_PATTERN, "ada"),
    "note": _text("note"),
}


def _check_provider(value: Any) -> str:
    if not isinstance(value, str) or value not in PROVIDERS:
        raise invalid("provider", f"must be one of {', '.join(PROVIDERS)}")
    return str(value)


# --- on disk --------------------------------------------------------------------------------------


class StoredCredential(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A credential as credentials.json has it. `id` only where it is not the name."""

    name: str
    provider: str
    api_key: str = ""
    base_url: str | None = None
    group: str = ""
    priority: int = 0
    weight: int = 1
    max_concurrent: int = 0
    limits: dict[str, Any] = {}
    models: list[str] | None = None
    keys: list[str] | None = None
    enabled: bool = True
    note: str = ""
    id: str = ""


def to_disk(credential: Credential) -> StoredCredential:
    """How a credential is stored."""
    fields = {name: getattr(credential, name) for name in StoredCredential.__struct_fields__ if name != "api_key"}
    lists = {name: None if fields[name] is None else list(fields[name]) for name in ("models", "keys")}
    own = {"limits": credential.limits.to_wire(), "id": "" if credential.id == credential.name else credential.id}
    return StoredCredential(**{**fields, **lists, **own}, api_key=credential.secret)


def from_disk(content: Mapping[str, Any]) -> list[Credential]:
    """The credentials that the content of a file has. Raises ValueError that says what is wrong, without secrets."""
    rows = content.get("credentials", [])
    if not isinstance(rows, list) or len(rows) > MOST:
        raise ValueError(f"its credentials must be a list of at most {MOST}")
    found = []
    for number, row in enumerate(rows, 1):
        name = row.get("name") if isinstance(row, dict) else None
        which = f"credential {number}" if not isinstance(name, str) else f"the credential {name[:50]!a}"
        try:
            found.append(_credential(msgspec.convert(row, StoredCredential)))
        except BridgeError as error:
            raise ValueError(f"{which}: {error.message.rstrip('.')}") from None
        except msgspec.ValidationError as error:
            # The name of an unknown field may be a secret that was put in the wrong place.
            unknown = "unknown field" in str(error)
            raise ValueError(f"{which}: {'it has a field that is not known' if unknown else error}") from None
    for what, values in (
        ("name", [each.name for each in found]),
        ("id", [each.id for each in found]),
        ("API key", [each.digest for each in found if each.secret]),
    ):
        if len(set(values)) != len(values):
            raise ValueError(f"two credentials have the same {what}")
    return found


def _credential(row: StoredCredential) -> Credential:
    """A row as a credential. Raises BridgeError invalid_request."""
    fields = {name: check(getattr(row, name)) for name, check in CHECKS.items() if name != "secret"}
    name = check_name(row.name)
    if name == DEFAULT:
        raise invalid("name", f"must not be {DEFAULT}: that is what the environment brings")
    if row.id and not re.fullmatch(rf"{NAME_PATTERN}(\.\d{{1,6}})?", row.id):
        raise invalid("id", "is not one")
    secret = check_secret(row.api_key) if row.api_key else ""
    provider = _check_provider(row.provider)
    return Credential(id=row.id or name, name=name, provider=provider, secret=secret, enabled=row.enabled, **fields)


class _Content(msgspec.Struct, frozen=True):
    """What a book holds: its own credentials, and which of the environment's are switched off."""

    own: tuple[Credential, ...] = ()
    #: ids
    disabled: frozenset[str] = frozenset()


def _content_of(content: Mapping[str, Any]) -> _Content:
    disabled = content.get("disabled", [])
    if not isinstance(disabled, list) or not all(isinstance(each, str) for each in disabled):
        raise ValueError("its list of disabled ones must be a list of names")
    return _Content(tuple(from_disk(content)), frozenset(f"{each}/{DEFAULT}" for each in disabled))


# --- the book -------------------------------------------------------------------------------------


Credentials = list[Credential]  # inside the class, `list` is the method


class CredentialBook:
    """All credentials: in memory, in credentials.json, and from the environment.

    Every change is on the disk before it holds: a save that fails (BridgeError storage_failed) changes nothing. The
    file may be edited by hand: it is read again when it has changed, and one that cannot be used leaves the last good
    one in force; `problem` then says what is wrong.
    """

    def __init__(
        self, document: Document, states: Document, clock: Clock, providers: Mapping[str, ProviderSettings]
    ) -> None:
        """Read the credentials. Raises StoreError where they cannot be read as a whole."""
        self.problem: str | None = None
        #: called with a credential that has just been blocked, and why; must not block or raise
        self.watchers: list[Callable[[Credential, str], None]] = []
        #: called when one may have become usable, or may be none any more; must not block or raise
        self.on_change: list[Callable[[], None]] = []
        self._document = document
        self._clock = clock
        self._changing = BoundedSemaphore(1)
        self._providers = providers
        self._stamp = document.stamp
        document.watchers.append(lambda: self._look(at_once=True))
        self._next_look = clock.monotonic() + LOOK_S
        try:
            self._use(_content_of(document.load() or {}))
        except ValueError as error:
            raise StoreError(
                f"credentials.json cannot be used: {error}.",
                "Correct it, or move it away and add the credentials anew: cli-bridge credentials add NAME.",
            ) from None
        self._standings = _Standings(states, self._changed)

    # --- what there is ---------------------------------------------------------------------------

    def list(self) -> Credentials:
        """All of them, those of the environment first, then by name."""
        self._look()
        return [*self._by_id.values()]

    def get(self, name: str, provider: str | None = None) -> Credential:
        """The credential of that name. Raises BridgeError not_found, or conflict where a provider must be named."""
        found = [each for each in self.list() if each.name == name and provider in (None, each.provider)]
        if not found:
            raise BridgeError(
                "not_found", f"There is no credential named {name[:50]!r}.", "GET /admin/credentials lists them."
            )
        if len(found) > 1:
            raise BridgeError(
                "conflict",
                f"There are {len(found)} credentials named {name!r}, one of each provider.",
                f"Say which one: add ?provider={found[0].provider} or ?provider={found[1].provider}.",
            )
        return found[0]

    def find(self, id: str) -> Credential | None:
        """The credential with that id, as it is by now; None where it is gone."""
        self._look()
        return self._by_id.get(id)

    @property
    def secrets(self) -> tuple[str, ...]:
        """All that nobody should read."""
        return tuple(each.secret for each in self._by_id.values() if each.secret)

    def is_bounded(self, id: str) -> bool:
        """Whether anything bounds what runs may spend with a credential, or how many it has."""
        found = self._by_id.get(id)
        return found is None or bool(found.max_concurrent or any(found.limits.values()) or not self.is_proven(found))

    def endpoint(self, credential: Credential) -> str:
        """Where its API is: its own endpoint, that of the settings, or the provider's usual one."""
        settings = self._providers[credential.provider]
        return credential.base_url or settings.base_url or PROVIDERS[credential.provider].home

    # --- how each is doing -----------------------------------------------------------------------

    def state(self, credential: Credential, model: str | None = None) -> State:
        """How a credential is now: for all, or for a model."""
        if credential.kind != self._kind(credential.provider):
            return State("disabled", f"{PROVIDERS[credential.provider].title} uses its CLI's own log-in.")
        bare = None if model is None else bare_name(model)
        return state_of(credential, self._standings.of(credential), self._clock.now(), bare)

    def limited_models(self, credential: Credential) -> dict[str, State]:
        """The models for which alone it is limited now, each with its state."""
        names = self._standings.of(credential).models
        if not names or not self.state(credential).open:
            return {}
        return {name: state for name in names if not (state := self.state(credential, name)).open}

    def is_proven(self, credential: Credential) -> bool:
        """Whether it has worked since the start, and since its last failure."""
        return credential.kind == "login" or self._standings.is_proven(credential)

    def note_success(self, credential: Credential, model: str | None = None) -> None:
        """The provider has taken it, with that model: all that was before is over, but for what was said of other
        models. Returns at once."""
        if self._standings.note_success(credential, model and bare_name(model)):
            self._changed()

    def note_limited(
        self,
        credential: Credential,
        retry_after_s: float | None,
        reason: str,
        chance: float,
        model: str | None = None,
    ) -> None:
        """The provider limits its rate, for all or for a model; on the disk when this returns, where that takes it."""
        before, bare = self._standings.of(credential), model and bare_name(model)
        after = limited(before, self._clock.now(), retry_after_s, reason, chance, bare)
        self._standings.put(credential, after, proven=bare is not None and self.is_proven(credential))
        self._changed()

    def note_rejected(self, credential: Credential, reason: str) -> None:
        """The provider does not take it, or its account cannot pay; on the disk when this returns."""
        before = self._standings.of(credential)
        if before.blocked_at is None:
            for watch in self.watchers:
                watch(credential, reason)
        self._standings.put(credential, rejected(before, self._clock.now(), reason))
        self._changed()

    def reset(self, credential: Credential) -> None:
        """Try it again at once, whatever has happened to it."""
        self._standings.put(credential, Standing())
        self._changed()

    # --- changes ---------------------------------------------------------------------------------

    def create(self, name: Any, provider: Any, secret: Any, **fields: Any) -> Credential:
        """A new credential. `fields` are values of a body, by the names of CHECKS, and `enabled`.

        Raises BridgeError invalid_request, conflict (a taken name, or the same secret twice) or storage_failed.
        """
        name, provider, secret = check_name(name), _check_provider(provider), check_secret(secret)
        checked = _checked(fields)

        def change(content: _Content) -> tuple[_Content, Credential]:
            self._refuse_twins(name, secret)
            if len(content.own) >= MOST:
                raise BridgeError("conflict", f"There are {MOST} credentials already.", "Remove some first.")
            made = Credential(id=self._new_id(name), name=name, provider=provider, secret=secret, **checked)
            return msgspec.structs.replace(content, own=(*content.own, made)), made

        return self._change(change)

    def update(self, credential: Credential, *, name: Any = None, **fields: Any) -> tuple[Credential, Credential]:
        """Change what is named, as `create` takes it; the credential before and after.

        Raises BridgeError not_found, invalid_request, conflict or storage_failed.
        """
        checked = _checked(fields)
        if name is not None:
            checked["name"] = check_name(name)

        def change(content: _Content) -> tuple[_Content, tuple[Credential, Credential]]:
            before = self._still(credential, editable=True)
            self._refuse_twins(checked.get("name"), checked.get("secret"), before)
            limits = before.limits.merge(checked.get("limits", Limits()))
            after = msgspec.structs.replace(before, **{**checked, "limits": limits})
            own = tuple(after if each.id == before.id else each for each in content.own)
            return msgspec.structs.replace(content, own=own), (before, after)

        return self._change(change)

    def enable(self, credential: Credential, enabled: bool) -> None:
        """Let it be used, or not. Raises BridgeError not_found or storage_failed."""

        def change(content: _Content) -> tuple[_Content, None]:
            before = self._still(credential)
            if before.source == "env":
                disabled = content.disabled - {before.id} if enabled else content.disabled | {before.id}
                return msgspec.structs.replace(content, disabled=disabled), None
            after = msgspec.structs.replace(before, enabled=enabled)
            own = tuple(after if each.id == before.id else each for each in content.own)
            return msgspec.structs.replace(content, own=own), None

        self._change(change)

    def remove(self, credential: Credential) -> None:
        """Forget it, and its secret. Raises BridgeError not_found, conflict (of the environment) or storage_failed."""

        def change(content: _Content) -> tuple[_Content, None]:
            before = self._still(credential, editable=True)
            own = tuple(each for each in content.own if each.id != before.id)
            return msgspec.structs.replace(content, own=own), None

        self._change(change)
        self._standings.put(credential, Standing())

    def _still(self, credential: Credential, *, editable: bool = False) -> Credential:
        """A credential as it is by now. Raises BridgeError."""
        found = self._by_id.get(credential.id)
        if found is None:
            raise BridgeError("not_found", f"There is no credential named {credential.name!r} any more.")
        if editable and found.source == "env":
            variable = PROVIDERS[found.provider].key_variable
            raise BridgeError(
                "conflict",
                f"{found.name} comes from the environment ({variable}): it can be disabled, and nothing else.",
                f"Change or unset {variable} where the service is configured, and reload it.",
            )
        return found

    def _refuse_twins(self, name: str | None, secret: str | None, own: Credential | None = None) -> None:
        """Raise BridgeError conflict where another has this name or this secret."""
        if name == DEFAULT and (own is None or own.name != name):
            raise BridgeError(
                "conflict", f"{DEFAULT} is the name of what the environment brings.", "Choose another name."
            )
        others = [each for each in self._by_id.values() if own is None or each.id != own.id]
        if name is not None and (twin := next((each for each in others if each.name == name), None)):
            raise BridgeError("conflict", f"There is a credential named {twin.name!r} already.", "Choose another name.")
        if secret is not None and (twin := next((each for each in others if each.secret == secret), None)):
            raise BridgeError(
                "conflict",
                f"The credential {twin.name!r} of {twin.provider} has this API key already.",
                "An API key counts once: change that credential instead.",
            )

    def _new_id(self, name: str) -> str:
        """An id that no other has; the name, where that is still free."""
        return next(each for each in _numbered(name) if each not in self._by_id)

    def _change(self, change: Callable[[_Content], tuple[_Content, T]]) -> T:
        """Run one change at a time: the new content is made, saved, and only then used."""

        def step() -> T:
            with self._changing:
                while True:
                    self._look(at_once=True)
                    if self.problem is not None:
                        raise BridgeError("conflict", self.problem, "Correct credentials.json first, or move it away.")
                    content, result = change(self._content)
                    disabled = sorted(each.partition("/")[0] for each in content.disabled)
                    rows = {"credentials": [to_disk(each) for each in content.own]}
                    try:
                        self._document.save({**rows, "disabled": disabled} if disabled else rows)
                    except Outdated:
                        continue
                    self._stamp = self._document.stamp
                    self._use(content)
                    return result

        # In one piece even if the request is dropped meanwhile: what is saved must also hold.
        result = unbroken(step)
        self._changed()
        return result

    def _look(self, *, at_once: bool = False) -> None:
        """Read the file again where it has changed."""
        now = self._clock.monotonic()
        if now < self._next_look and not at_once:
            return
        self._next_look = now + LOOK_S
        stamp = self._document.stamp
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            if stamp is None:
                raise ValueError("it is missing")
            self._use(_content_of(self._document.load() or {}))
            self.problem = None
        except StoreError as error:
            self.problem = f"{error.message} The last good one stays in force."
        except ValueError as error:
            self.problem = f"credentials.json cannot be used: {error}. The last good one stays in force."
        if self.problem is not None:
            log.warning("%s", self.problem)
        self._changed()

    def _use(self, content: _Content) -> None:
        self._content = content
        own = sorted(content.own, key=lambda each: each.name)
        of_environment = self._of_environment(content.disabled, {each.secret for each in own})
        self._by_id = {each.id: each for each in (*of_environment, *own)}

    def _of_environment(self, disabled: frozenset[str], own_secrets: Collection[str]) -> Iterator[Credential]:
        """What the environment brings, but for what is in the file as well: a secret counts once."""
        for provider, settings in self._providers.items():
            id = f"{provider}/{DEFAULT}"
            known: dict[str, Any] = {"id": id, "name": DEFAULT, "provider": provider, "source": "env"}
            if settings.credentials == "login":
                yield Credential(**known, kind="login", enabled=id not in disabled)
            elif settings.api_key and settings.api_key not in own_secrets:
                yield Credential(**known, secret=settings.api_key, enabled=id not in disabled)

    def _kind(self, provider: str) -> Kind:
        return "login" if self._providers[provider].credentials == "login" else "api-key"

    def _changed(self) -> None:
        for tell in self.on_change:
            tell()


class _Standings:
    """What has happened to each credential, by its id; in credential-states.json, so that a restart forgets nothing.

    That is no money: a file that cannot be read is begun afresh, and a disk that fails is no reason to fail a run.
    """

    def __init__(self, document: Document, changed: Callable[[], None]) -> None:
        """`changed` is called when another host has learned something."""
        self._document = document
        self._saving = BoundedSemaphore(1)
        self._changed = changed
        #: ids with the mark of the secret that has worked since the start
        self._proven: dict[str, str] = {}
        self._by_id: dict[str, Standing] = {}
        #: id -> what is to be saved of it; None: nothing is to be known of it any more
        self._unsaved: dict[str, Standing | None] = {}
        self._load()
        document.watchers.append(self._take)

    def _load(self) -> None:
        self._by_id = {}
        try:
            self._by_id = msgspec.convert((self._document.load() or {}).get("states", {}), dict[str, Standing])
        except (StoreError, msgspec.ValidationError) as error:
            log.warning("credential-states.json is begun afresh: %s", error)

    def _take(self) -> None:
        """Know what another host has learned, and what is not saved yet."""
        self._load()
        for id, standing in self._unsaved.items():
            self._set(id, standing)
        self._changed()

    def _set(self, id: str, standing: Standing | None) -> None:
        if standing is None:
            self._by_id.pop(id, None)
        else:
            self._by_id[id] = standing

    def of(self, credential: Credential) -> Standing:
        """What has happened to it; what was known of another secret says nothing of this one."""
        found = self._by_id.get(credential.id)
        return found if found is not None and found.mark == credential.mark else Standing()

    def is_proven(self, credential: Credential) -> bool:
        """Whether its secret has worked since the start, and since its last failure."""
        worked = self._proven.get(credential.id)
        return worked is not None and worked == credential.mark

    def note_success(self, credential: Credential, model: str | None) -> bool:
        """Whether that is news."""
        news = not self.is_proven(credential)
        self._proven[credential.id] = credential.mark
        before = self._by_id.get(credential.id)
        if before is None:
            return news
        known = before.models if before.mark == credential.mark and model is not None else {}
        others = {name: each for name, each in known.items() if name != model}
        after = Standing(mark=credential.mark, models=others) if others else None
        if after != before:
            self._remember(credential.id, after)
            gevent.spawn(self._save)
        return news or model in before.models

    def put(self, credential: Credential, standing: Standing, *, proven: bool = False) -> None:
        """Remember it. `proven`: it has worked all the same."""
        if not proven:
            self._proven.pop(credential.id, None)
        kept = None if standing == Standing() else msgspec.structs.replace(standing, mark=credential.mark)
        if kept == self._by_id.get(credential.id):
            return
        self._remember(credential.id, kept)
        unbroken(self._save)

    def _remember(self, id: str, standing: Standing | None) -> None:
        self._unsaved[id] = standing
        self._set(id, standing)

    def _save(self) -> None:
        with self._saving:
            while self._unsaved:
                saving = dict(self._unsaved)
                try:
                    self._document.save({"states": self._by_id})
                except Outdated:
                    continue
                except BridgeError as error:
                    log.warning("credential-states.json could not be written: %s", error.message)
                    return
                self._unsaved = {
                    id: standing for id, standing in self._unsaved.items() if id not in saving or saving[id] != standing
                }


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a body as a Credential has them. Raises BridgeError invalid_request."""
    checked = {name: CHECKS[name](value) for name, value in fields.items() if name != "enabled"}
    if "enabled" in fields:
        if not isinstance(fields["enabled"], bool):
            raise invalid("enabled", "must be true or false")
        checked["enabled"] = fields["enabled"]
    return checked


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in range(2, 1_000_000):
        yield f"{name}.{number}"
