"""A stand-in for `claude -p`: stream-json in, stream-json out, one answer that echoes the prompt.

It is as strict as the real one where that matters to the bridge: only the first initialize counts, unknown
flags end it, lines that are not to be queried are acknowledged with an empty result, and with a budget every
answer ends in an error that says that it is exhausted. Directives in the
prompt (misdeeds.py) make it misbehave; those in the system prompt work before the prompt is read.
"""

import json
import os
import sys
import time
import uuid

import misdeeds

FLAGS = {
    "-p": 0,
    "--verbose": 0,
    "--include-partial-messages": 0,
    "--bare": 0,
    "--strict-mcp-config": 0,
    "--no-session-persistence": 0,
    "--disable-slash-commands": 0,
    "--input-format": 1,
    "--output-format": 1,
    "--system-prompt": 1,
    "--tools": 1,
    "--setting-sources": 1,
    "--model": 1,
    "--max-turns": 1,
    "--max-budget-usd": 1,
}
SESSION = str(uuid.UUID(int=0))


def main(version="2.1.332 (Claude Code)", logged_in=True, boot="", missing=""):
    """Run as the CLI. `boot` is what goes wrong before any line is read (misdeeds.py), `missing` a library."""
    if missing:
        return misdeeds.broken(missing)
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        print(version)
        return 0
    if arguments == ["auth", "status", "--json"]:
        print(json.dumps({"loggedIn": logged_in, "authMethod": "oauth_token" if logged_in else "none"}))
        return 0 if logged_in else 1
    options = _options(arguments)
    misdeeds.at_the_start(boot)
    say({"type": "system", "subtype": "ui_invalidate", "event": "ui.render", "session_id": SESSION})
    return Session(options, logged_in).run()


def _options(arguments):
    """The options of the command line; ends the process for a flag that the CLI does not have."""
    options, rest = {"--model": "default-model"}, list(arguments)
    while rest:
        flag, _, value = rest.pop(0).partition("=")
        if flag not in FLAGS:
            sys.exit(f"error: unknown option '{flag}'")
        options[flag] = value or rest.pop(0) if FLAGS[flag] else True
    return options


def say(message):
    """One line of stdout."""
    sys.stdout.write(json.dumps(message, ensure_ascii=False) + "\n")
    sys.stdout.flush()


class Session:
    """One process: what it was told so far, and the answer to the one prompt."""

    def __init__(self, options, logged_in):
        self.settings = {"model": options["--model"]}
        self.budget = "--max-budget-usd" in options
        self.logged_in = logged_in
        self.system = None
        self.body = {}
        self.earlier = []

    def run(self):
        """Take lines until standard input ends."""
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if message["type"] == "control_request":
                self.control(message["request_id"], message["request"])
            elif message["type"] == "assistant":
                self.earlier.append(("assistant", self.text(message)))
            elif message.get("shouldQuery") is False:
                self.earlier.append(("user", self.text(message)))
                say({**self.result(""), "num_turns": 0, "usage": self.usage("", 0), "total_cost_usd": 0})
            else:
                status = self.answer(message)
                if status:
                    return status
        return 0

    def control(self, request_id, request):
        """initialize, set_max_thinking_tokens, apply_flag_settings; others are refused, as an unknown subtype is."""
        response = {"subtype": "success", "request_id": request_id, "response": {}}
        if request["subtype"] == "initialize":
            if self.system is None:
                self.system = "".join(request["systemPrompt"])
            directives = misdeeds.Directives(self.system)
            if "exit_before_reading" in directives:
                os._exit(0)
            if "hang_before_reading" in directives:
                time.sleep(misdeeds.FOREVER_S)
            response["response"] = {"commands": [], "output_style": "default", "pid": os.getpid()}
        elif request["subtype"] == "set_max_thinking_tokens":
            self.settings["thinking"] = request["max_thinking_tokens"]
        elif request["subtype"] == "apply_flag_settings" and "refuse_settings" not in self.system:
            self.settings.update(request["settings"])
            # As the real one does it: all of it goes into the body.
            self.body = json.loads(self.settings["env"].get("CLAUDE_CODE_EXTRA_BODY", "{}"))
        else:
            response = {"subtype": "error", "request_id": request_id, "error": "not supported"}
        say({"type": "control_response", "response": response})

    @property
    def by_tool(self):
        """Whether the answer is to be given to a tool."""
        return any(tool["name"] == "StructuredOutput" for tool in self.body.get("tools", ()))

    @property
    def wants_json(self):
        """Whether the answer is to fit a schema."""
        return self.by_tool or "output_config" in self.body

    @classmethod
    def text(cls, message):
        """The text blocks of a line, with a note of each other block."""
        content = message["message"]["content"]
        return cls.said_in([{"type": "text", "text": content}] if isinstance(content, str) else content)

    @classmethod
    def said_in(cls, blocks):
        """The words of some blocks."""
        notes = {
            "text": lambda b: b["text"],
            "image": lambda b: f"<{b['source']['media_type']}>",
            "tool_use": lambda b: f"<{b['name']} {json.dumps(b['input'])}>",
            "tool_result": lambda b: f"<{b['tool_use_id']}: {cls.said_in(b['content'])}>",
        }
        return "".join(notes[b["type"]](b) for b in blocks)

    @staticmethod
    def usage(text, prompt_tokens=11):
        """Usage of an answer: one token a word."""
        return {
            "input_tokens": prompt_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": len(text.split()),
        }

    def answer(self, message):
        """Answer a prompt; the exit status where the CLI ends with it."""
        if not self.logged_in:
            say(self.result("Not logged in · Please run /login", is_error=True, terminal_reason="api_error"))
            return 1
        orders = misdeeds.Directives(self.text(message))
        misdeeds.before_the_answer(orders)
        if "is_error" in orders:
            # As the real one says it: a success that is an error.
            status = orders["is_error"].get("status")
            say(self.result("API Error", is_error=True, api_error_status=int(status) if status else None))
            return 0
        text = self.said(orders)
        if "local" in orders:
            # A slash command, answered without a model: no turn, no cost, no error.
            say(self.result("You have spent nothing.", num_turns=0, total_cost_usd=0, usage=self.usage("", 0)))
            return 0
        self.stream(text, orders)
        result = self.result(text, usage=self.usage(text), total_cost_usd=0.0002)
        result["modelUsage"] = {self.settings["model"]: {"inputTokens": 11, "outputTokens": len(text.split())}}
        if self.budget and "budget_left" not in orders:
            # As the real one says it: every answer costs more than next to nothing.
            result.update(subtype="error_max_budget_usd", is_error=True, terminal_reason="budget_exhausted")
            result.update(usage=self.usage("", 0), errors=["Reached maximum budget"])
            del result["result"]
        if "no_usage" in orders:
            del result["usage"], result["modelUsage"], result["total_cost_usd"]
        if "num_turns" in orders:
            result["num_turns"] = int(orders["num_turns"]["is"])
        line = json.dumps(result, ensure_ascii=False)
        if "cost" in orders:
            line = line.replace('"total_cost_usd": 0.0002', f'"total_cost_usd": {orders["cost"]["is"]}')
        print(line, flush=True)
        if "leave" in orders:
            os._exit(1)
        return 0

    def said(self, orders):
        """The text of the answer."""
        if "empty" in orders:
            return ""
        if "report" in orders:
            return misdeeds.report()
        if "say" in orders:
            return orders["say"]["json"]
        if "told" in orders:
            told = {"system": self.system, "settings": self.settings, "earlier": self.earlier, "body": self.body}
            return json.dumps(told)
        return '{"echo":"yes"}' if self.wants_json else f"echo: {orders.text}"

    def stream(self, text, orders):
        """The lines that the CLI prints while the model speaks."""
        counted = None if "no_usage" in orders else {**self.usage(text), "output_tokens": 1}
        say({"type": "system", "subtype": "status", "status": "requesting", "session_id": SESSION})
        event({"type": "message_start", "message": {"model": self.settings["model"], "usage": counted}})
        tool = self.by_tool and "no_structure" not in orders
        block = {"type": "tool_use", "name": "StructuredOutput", "input": {}} if tool else {"type": "text", "text": ""}
        event({"type": "content_block_start", "index": 0, "content_block": block})
        count = max(2, int(orders.number("slow", "count", 2)))
        size = max(1, -(-len(text) // count))
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        for number, piece in enumerate(pieces):
            if tool:
                delta = {"type": "input_json_delta", "partial_json": piece}
            else:
                delta = {"type": "text_delta", "text": piece}
            event({"type": "content_block_delta", "index": 0, "delta": delta})
            time.sleep(orders.number("slow", "delay", 0))
            if number == len(pieces) // 2 - 1:
                misdeeds.in_the_middle(orders)
        event({"type": "content_block_stop", "index": 0})
        if "call" in orders:
            self.call(orders["call"])
        # With the budget gone in the middle of a tool's turn, the reason is not told.
        stop = "end_turn" if not tool else None if self.budget else "tool_use"
        stop = "tool_use" if "call" in orders else "max_tokens" if "max_tokens" in orders else stop
        event({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": counted and self.usage(text)})
        event({"type": "message_stop"})
        if "twice" in orders:
            say({"type": "system", "subtype": "status", "status": "requesting", "session_id": SESSION})

    @staticmethod
    def call(order):
        """A call of a tool, which the CLI answers by itself: it knows none."""
        block = {"type": "tool_use", "id": "toolu_1", "name": order["name"], "input": {}}
        event({"type": "content_block_start", "index": 1, "content_block": block})
        for piece in (order["arguments"][:3], order["arguments"][3:]):
            delta = {"type": "input_json_delta", "partial_json": piece}
            event({"type": "content_block_delta", "index": 1, "delta": delta})
        error = f"<tool_use_error>Error: No such tool available: {order['name']}</tool_use_error>"
        result = {"type": "tool_result", "content": error, "is_error": True, "tool_use_id": "toolu_1"}
        say({"type": "user", "message": {"role": "user", "content": [result]}, "session_id": SESSION})
        event({"type": "content_block_stop", "index": 1})

    @staticmethod
    def result(text, **more):
        """The line that ends a turn."""
        return {
            "type": "result",
            "subtype": "success",
            "is_error": False,
            "num_turns": 1,
            "stop_reason": "end_turn",
            "api_error_status": None,
            "terminal_reason": "completed",
            "result": text,
            "session_id": SESSION,
            **more,
        }


def event(inner):
    """One event of the model's stream."""
    say({"type": "stream_event", "event": inner, "session_id": SESSION, "parent_tool_use_id": None})


if __name__ == "__main__":
    sys.exit(main())
