"""Which CLI a model's name stands for, and names of the operator's own: models.json in the data folder; and what the
API of a model takes."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from bridge.clock import Clock
from bridge.errors import BridgeError, StoreError
from bridge.registry import PROVIDERS
from bridge.store.document import Document, OperatorFile
from bridge.types import (
    ANTHROPIC,
    LONG_CONTEXT,
    MODEL_PATTERN,
    NATIVE,
    GenerationRequest,
    Message,
    ModelChoice,
    Search,
    Thinking,
    Thought,
    ToolResult,
)

What = Literal[
    "temperature",
    "top_p",
    "top_k",
    "forced_tool",
    "output_format",
    "effort",
    "thinking",
    "thinking_budget",
    "adaptive_thinking",
    "own_thinking",
    "no_thinking",
    "between_tools",
]
"""Things that not every model's API takes."""

#: of a model whose name has none: above all others
_UNKNOWN = (99, 0)

log = logging.getLogger("bridge")

_HINT = "Correct or remove models.json in the data folder; docs/limits.md shows what it may hold."


#: Words in the names of models that make no text, or not by the calls that the CLIs make.
_NO_TEXT = re.compile(r"audio|realtime|image|tts|transcribe|search|embed|moderation|instruct|vision|live")
_DATE = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})\Z")
#: A model that was made within so many seconds is news.
NEWS_S = 120 * 86400.0


class Offers:
    """What the providers list, as each told last: offers.json. Who was not asked, or did not answer, lists nothing that
    is known."""

    def __init__(self, path: Path) -> None:
        """A file that cannot be used is begun afresh: the providers are asked again."""
        self._document = Document(path, keeps_previous=False)
        #: provider -> when it was asked, in UTC seconds, and its models with when each was made
        self._told: dict[str, _Offer] = {}
        try:
            self._told = msgspec.convert((self._document.load() or {}).get("providers", {}), dict[str, _Offer])
        except (StoreError, msgspec.ValidationError) as error:
            log.warning("offers.json is begun afresh: %s", error)

    def note(self, provider: str, at: float, models: Mapping[str, float]) -> None:
        """Remember what a provider lists now. Raises BridgeError storage_failed."""
        self._told[provider] = _Offer(at, dict(models))
        self._document.save({"providers": msgspec.to_builtins(self._told)})

    def asked_at(self, provider: str) -> float:
        """When a provider was asked last, in UTC seconds; 0 for never."""
        return self._told[provider].at if provider in self._told else 0.0

    def texts(self, provider: str) -> list[str]:
        """The models of a provider that make text, as far as their names tell."""
        row = PROVIDERS[provider]
        told = self._told[provider].models if provider in self._told else {}
        return sorted(name for name in told if row.names_model(name) and not _NO_TEXT.search(name))

    def has(self, provider: str, model: str) -> bool | None:
        """Whether a provider lists a model, with its date or without; None where that is not known."""
        if provider not in self._told:
            return None
        plain = _plain(model)
        return any(plain in (name.lower(), _plain(name)) for name in self._told[provider].models)

    def news(self, provider: str) -> list[str]:
        """Those of its models that are new."""
        if provider not in self._told:
            return []
        at, models = self._told[provider].at, self._told[provider].models
        return [name for name in self.texts(provider) if models[name] > at - NEWS_S]

    def nearest(self, provider: str, model: str) -> str | None:
        """The model of a provider whose name is closest to one that it does not have."""
        found = difflib.get_close_matches(_plain(model), self.texts(provider), n=1, cutoff=0.5)
        return found[0] if found and _plain(found[0]) != _plain(model) else None


def _plain(model: str) -> str:
    return _DATE.sub("", model.lower().removesuffix(LONG_CONTEXT))


class _Offer(msgspec.Struct, frozen=True):
    at: float
    models: dict[str, float]


class ModelBook:
    """Finds the CLI for a model's name. A change of models.json holds within about a second."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        priced: Callable[[str], Sequence[str]],
        stands_for: Callable[[str, str], str],
        allowed: Mapping[str, tuple[str, ...]],
        offers: Offers,
    ) -> None:
        """`priced`: provider -> the models that it has known prices for; `stands_for`: provider, name -> the model that
        its CLI really asks for; `allowed`: provider -> its allow-list, empty for any; `offers`: what they list.
        Raises StoreError where the file cannot be used."""
        self.offers = offers
        self._priced = priced
        self._stands_for = stands_for
        self._allowed = allowed
        none: Mapping[str, ModelChoice] = {}
        self._file = OperatorFile(path, clock, self._parse, none, _HINT)

    @property
    def problem(self) -> str | None:
        """What is wrong with models.json, if it cannot be used any more."""
        return self._file.problem

    @property
    def aliases(self) -> Mapping[str, ModelChoice]:
        """The operator's names, and what they stand for."""
        return self._file.value

    def resolve(self, name: str) -> ModelChoice:
        """What a name stands for, also with a provider before it (openai/gpt-6-sol). Raises BridgeError not_found."""
        bare = name.rpartition("/")[2]
        choice = self.aliases.get(name) or self.aliases.get(bare)
        if choice is not None:
            return choice
        provider = self._provider_of(name)
        if provider is None and bare != name:
            provider, name = self._provider_of(bare), bare
        if provider is None:
            raise BridgeError(
                "not_found",
                f"No CLI is known for the model {name}.",
                "Choose one of the models that GET /v1/models lists.",
            )
        return self.of_provider(provider, name)

    def of_provider(self, provider: str, name: str) -> ModelChoice:
        """What a name stands for where its CLI is known: the operator's alias, else the CLI's own, else itself, without
        what stands before it (anthropic/claude-sonnet-5-5) where only then it is a known model."""
        choice = self.aliases.get(name)
        if choice is not None:
            return choice
        bare = name.rpartition("/")[2]
        if bare != name:
            names = self.names(provider)
            name = bare if bare in names and name not in names else name
        real = self._stands_for(provider, name)
        return ModelChoice(provider, real, None if real == name else name)

    def names(self, provider: str) -> list[str]:
        """The models of a provider that can be named: its allow-list, or those with a known price, and the others that
        it lists."""
        return list(self._allowed.get(provider, ())) or [*self._priced(provider), *self._unpriced(provider)]

    def _unpriced(self, provider: str) -> list[str]:
        priced = set(self._priced(provider))
        return [name for name in self.offers.texts(provider) if not {name.lower(), _plain(name)} & priced]

    @property
    def without_price(self) -> dict[str, list[str]]:
        """Provider -> the new models that it lists and that have no price here."""
        found = {name: set(self._unpriced(name)) & set(self.offers.news(name)) for name in PROVIDERS}
        return {name: sorted(models) for name, models in found.items() if models}

    def _provider_of(self, name: str) -> str | None:
        for provider in PROVIDERS:
            if name in self._allowed.get(provider, ()):
                return provider
        for provider in PROVIDERS:
            if name.lower().removesuffix("[1m]") in self._priced(provider):
                return provider
        return next((provider for provider, row in PROVIDERS.items() if row.names_model(name)), None)

    def _parse(self, data: bytes) -> Mapping[str, ModelChoice]:
        """Raises ValueError that says what is wrong."""
        file = msgspec.json.decode(data, type=_File)
        if file.schema != 1:
            raise ValueError(f"it has schema {file.schema}, not 1")
        aliases = {}
        for alias, given in file.aliases.items():
            target = _Target(given) if isinstance(given, str) else given
            for name in (alias, target.model):
                if not re.fullmatch(MODEL_PATTERN, name):
                    raise ValueError(f"{name!r} is not a well-formed model name")
            if target.model != alias and target.model in file.aliases:
                raise ValueError(f"the alias {alias} stands for {target.model}, which is an alias itself")
            provider = target.provider or self._provider_of(target.model)
            if provider not in PROVIDERS:
                raise ValueError(f"the alias {alias} needs a provider: one of {', '.join(PROVIDERS)}")
            aliases[alias] = ModelChoice(provider, self._stands_for(provider, target.model), alias)
        return aliases


class _Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: str
    provider: str | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    aliases: dict[str, str | _Target] = {}
    schema: int = 1
    note: str = ""


def takes(provider: str, model: str, what: What) -> bool:
    """Whether what a request says of `what` can go to the API of a model.

    Source: Anthropic's pages on its models, on tool use, structured outputs and thinking. A name without a version is
    taken for one of the newest. codex has no way for any of it but forced tools.
    """
    if provider != "claude":
        return what == "forced_tool"
    version = _version(model)
    largest = re.search("fable|mythos", model) is not None
    match what:
        case "temperature" | "top_p" | "top_k":
            return version < (4, 7)
        case "forced_tool":
            return version < ((5, 1) if largest else (5, 5)) or version == _UNKNOWN
        case "output_format":
            return (4, 5) <= version < _UNKNOWN
        case "effort":
            return version >= (4, 6) or (version == (4, 5) and "opus" in model)
        case "thinking":
            return version >= (3, 7)
        case "adaptive_thinking":
            return version >= (4, 6)
        case "thinking_budget":
            return (3, 7) <= version < (4, 7)
        case "own_thinking":
            return version >= (5, 0)
        case "no_thinking":
            return version < (5, 0) or (not largest and version == (5, 0)) or takes(provider, model, "between_tools")
        case "between_tools":
            # What this one has in the place of no thinking: what it writes between calls of tools counts as such.
            return "sonnet" in model and (5, 5) <= version < _UNKNOWN


#: The temperature that Anthropic's API takes at most; OpenAI's goes to 2.
_CLAUDE_WARMEST = 1.0
#: How a search of the web is named that is passed over.
WEB_SEARCH = "web_search"
#: What only one provider's search takes, and how that is named for the others.
_SEARCH_WORDS = {"context": "search_context_size", "blocked": "blocked_domains"}
#: It takes no smaller budget for thinking, which must lie below max_tokens.
LEAST_THINKING_TOKENS = 1024


def heeded(request: GenerationRequest, *, may_search: bool = False) -> GenerationRequest:
    """A request with no more of its sampling and thinking than the API of its model takes; the rest is named in
    `ignored`.

    Source: Anthropic's pages on its models: a model that thinks takes none, and none takes a temperature above 1, or
    temperature and top_p together. Programs that bring tools of their own go on without a search of the web where they
    may make none (`may_search`), or where that and a call that must come exclude each other.
    """
    search = request.web_search
    if search is not None and request.tools:
        barred = not may_search or request.tool_choice.mode == "required"
        if barred or any(tool.name == WEB_SEARCH for tool in request.tools):
            request = msgspec.structs.replace(request, web_search=None, ignored=(*request.ignored, WEB_SEARCH))
    for name in ("context", "blocked"):
        if search is not None and getattr(search, name) and (name == "context") == (request.provider == "claude"):
            request = msgspec.structs.replace(request, ignored=(*request.ignored, _SEARCH_WORDS[name]))
    if _is_effort_alone(request) and not takes("claude", request.model, "effort"):
        request = msgspec.structs.replace(request, effort=None, ignored=(*request.ignored, "effort"))
    asked, takes_it = request.thinking, True
    if asked is not None and asked.mode == "disabled":
        takes_it = _may_rest(request)
    elif asked is not None:
        takes_it = takes(request.provider, request.model, "thinking") and may_think(request)
    elif request.thoughts is not None and request.provider == "claude" and thinks(request):
        # Where only a summary was asked for, in the words of OpenAI.
        request = msgspec.structs.replace(request, thinking=Thinking("adaptive", display="summarized"))
    if not takes_it:
        ignored = (*request.ignored, "thinking")
        request = msgspec.structs.replace(request, thinking=None, thoughts=None, ignored=ignored)
    request = with_thoughts(request)
    given = request.sampling
    over = [name for name in ("temperature", "top_p", "top_k") if getattr(given, name) is not None]
    if not over:
        return request
    if not thinks(request):
        over = [name for name in over if not takes(request.provider, request.model, name)]  # type: ignore[arg-type]
        if (given.temperature or 0) > _CLAUDE_WARMEST and "temperature" not in over:
            over.append("temperature")
        if "top_p" not in over and given.top_p is not None and given.temperature is not None:
            over.append("top_p")
    words = {"top_p": "topP", "top_k": "topK"} if request.api == NATIVE else {}
    return msgspec.structs.replace(
        request,
        sampling=msgspec.structs.replace(given, **dict.fromkeys(over)),
        ignored=(*request.ignored, *(words.get(name, name) for name in over)),
    )


def may_think(request: GenerationRequest) -> bool:
    """Whether the API of a model of claude lets it think in this request, where that is asked for. What thinks within a
    budget needs room for it, takes no results of tools without the thoughts before them, and no forced call."""
    if takes("claude", request.model, "adaptive_thinking") and not _wants_budget(request):
        return True
    return (
        request.max_output_tokens > LEAST_THINKING_TOKENS
        and request.tool_choice.mode != "required"
        and (not _has_results(request.messages[-1]) or _ends_in_thought(request))
    )


def _may_rest(request: GenerationRequest) -> bool:
    """Whether the API of a model lets it answer without thinking. One that thinks by itself must at the highest
    efforts."""
    must = request.effort in ("xhigh", "max") and takes(request.provider, request.model, "own_thinking")
    return takes(request.provider, request.model, "no_thinking") and not must


def _wants_budget(request: GenerationRequest) -> bool:
    asked = request.thinking is not None and request.thinking.mode == "enabled"
    return asked and takes("claude", request.model, "thinking_budget")


def _ends_in_thought(request: GenerationRequest) -> bool:
    """Whether the last turn of the model begins with what it thought."""
    last = next((message for message in reversed(request.messages) if message.role == "assistant"), None)
    return last is not None and isinstance(last.content[0], Thought)


def with_thoughts(request: GenerationRequest) -> GenerationRequest:
    """The request with those thoughts in its conversation that its model may be given again: all since the last
    question, where it is to think again. All others are left out, which every model takes; and so are searches of the
    web, whose texts stay.

    Source: Anthropic's page on thinking: they matter to a model that goes on with what its tools gave; and newer models
    take none where anything before them is another, such as a search that is left out, or the system prompt to which
    something was added later on.
    """
    if not any([isinstance(part, Search | Thought) for message in request.messages for part in message.content]):
        return request
    asked: Thinking | None = request.thinking
    kept = len(request.messages)
    if asked is not None and asked.mode != "disabled" and request.provider == "claude":
        while kept and (request.messages[kept - 1].role == "assistant" or _has_results(request.messages[kept - 1])):
            kept -= 1
    if not takes("claude", request.model, "thinking_budget"):
        searched = any(isinstance(part, Search) for message in request.messages[kept:] for part in message.content)
        kept = len(request.messages) if searched else max(kept, request.before_system)
    messages = tuple(
        _without(message, (Search,) if number >= kept else (Search, Thought))
        for number, message in enumerate(request.messages)
    )
    return msgspec.structs.replace(request, messages=messages)


def _has_results(message: Message) -> bool:
    return any(isinstance(part, ToolResult) for part in message.content)


def _without(message: Message, kinds: tuple[type, ...]) -> Message:
    if not any(isinstance(part, kinds) for part in message.content):
        return message
    return Message(message.role, tuple(part for part in message.content if not isinstance(part, kinds)))


def thinks(request: GenerationRequest) -> bool:
    """Whether a request asks for thinking, or the model thinks by itself and is not told otherwise."""
    if request.thinking is not None:
        return request.thinking.mode != "disabled"
    if request.effort == "none":
        return not takes(request.provider, request.model, "no_thinking")
    unasked = request.effort is None or _is_effort_alone(request)
    return not unasked or takes(request.provider, request.model, "own_thinking")


def _is_effort_alone(request: GenerationRequest) -> bool:
    """Whether the effort of a request asks a model of claude for no thinking: in Anthropic's API, `thinking` does."""
    return request.provider == "claude" and request.api == ANTHROPIC and request.effort is not None


def _version(model: str) -> tuple[int, int]:
    """The two numbers of claude-opus-4-7, claude-3-5-haiku-20241022, claude-fable-5."""
    numbers = re.findall(r"(?<!\d)\d{1,2}(?!\d)", model.removesuffix(LONG_CONTEXT))
    return (int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 0) if numbers else _UNKNOWN
