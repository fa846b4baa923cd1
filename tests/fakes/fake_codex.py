"""A stand-in for `codex`: the app-server's JSON lines, with many threads at once, and the small commands.

As strict as the real one where that matters to the bridge: initialize comes first, unknown methods and threads
are refused, a turn ends with turn/completed whatever came of it, an unsubscribed thread is closed. Directives
in the prompt (misdeeds.py) make the whole process misbehave, as a broken app-server would.
"""

import json
import os
import sys
import threading
import time
import uuid

import misdeeds

FAILURES = {
    "401": {"httpConnectionFailed": {"httpStatusCode": 401}},
    "429": {"responseTooManyFailedAttempts": {"httpStatusCode": 429}},
    "503": "serverOverloaded",
    "quota": "usageLimitExceeded",
    "404": "modelNotFound",
    "other": "other",
}
TOOLS = {"apply_patch_tool_type": "freeform", "shell_type": "shell_command", "supports_search_tool": True}


def main(version="codex-cli 0.171.0", logged_in=True, boot="", models=None, missing=""):
    """Run as the CLI. `boot` is what goes wrong when the app-server starts (misdeeds.py), `missing` a library."""
    if missing:
        return misdeeds.broken(missing)
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        print(version)
        return 0
    if arguments == ["login", "status"]:
        print("Logged in" if logged_in else "Not logged in", file=sys.stderr)
        return 0 if logged_in else 1
    if arguments == ["debug", "models"]:
        print(json.dumps({"models": [{"slug": "gpt-6-sol", **TOOLS}]}) if models is None else models)
        return 0
    if arguments == ["mcp", "list", "--json"]:
        print("[]")
        return 0
    if not arguments or arguments[0] != "app-server":
        sys.exit("error: unrecognized subcommand")
    misdeeds.at_the_start(boot)
    Server(boot).run()
    return 0


class Refused(Exception):
    """An error answer of the protocol."""


class Server:
    """The app-server: one greeting, any number of threads."""

    def __init__(self, boot=""):
        self.boot = boot
        self.greeted = False
        self.threads = {}
        self.speaking = threading.Lock()
        self.answered = threading.Event()
        self.last_answer = None

    def run(self):
        """Take lines until standard input ends."""
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if "method" not in message:
                self.last_answer = message
                self.answered.set()
            elif "id" in message:
                try:
                    self.say({"id": message["id"], "result": self.call(message["method"], message["params"])})
                except Refused as error:
                    self.say({"id": message["id"], "error": {"code": -32600, "message": str(error)}})
                self.begin_turns()

    def say(self, message):
        """One line of stdout; turns speak at the same time."""
        with self.speaking:
            sys.stdout.write(json.dumps(message, ensure_ascii=False) + "\n")
            sys.stdout.flush()

    def call(self, method, params):
        """The result of a request. Raises Refused."""
        if method == "initialize":
            if self.boot == "refuse":
                raise Refused("the state database is locked")
            self.greeted = True
            return {"userAgent": "bridge/0.171.0", "codexHome": os.environ["CODEX_HOME"]}
        if not self.greeted:
            raise Refused("Not initialized")
        if method == "thread/start":
            directives = misdeeds.Directives(params["developerInstructions"])
            if "exit_before_reading" in directives:
                os._exit(0)
            if "refuse_thread" in directives:
                raise Refused("No models are available.")
            thread = str(uuid.uuid4())
            self.threads[thread] = Thread(self, thread, params)
            return {"thread": {"id": thread}, "model": params["model"], "instructionSources": []}
        thread = self.threads.get(params.get("threadId"))
        if thread is None:
            raise Refused(f"thread not found: {params.get('threadId')}")
        return thread.call(method, params)

    def begin_turns(self):
        """Start the turns whose turn/start has been answered."""
        for thread in list(self.threads.values()):
            if thread.pending is not None:
                turn, thread.pending = thread.pending, None
                threading.Thread(target=turn, daemon=True).start()


class Thread:
    """One conversation; at most one turn at a time."""

    def __init__(self, server, thread_id, params):
        self.server = server
        self.id = thread_id
        self.params = params
        self.earlier = []
        self.pending = None
        self.turn = None
        self.stop = threading.Event()

    def call(self, method, params):
        """The result of a request about this thread. Raises Refused."""
        if method == "thread/inject_items":
            self.earlier += params["items"]
            return {}
        if method == "turn/start":
            self.turn = str(uuid.uuid4())
            self.pending = lambda: self.answer(params)
            return {"turn": {"id": self.turn, "status": "inProgress", "error": None}}
        if method == "turn/interrupt":
            if params["turnId"] != self.turn:
                raise Refused("expected active turn id")
            self.stop.set()
            return {}
        if method == "thread/unsubscribe":
            del self.server.threads[self.id]
            self.server.say({"method": "thread/closed", "params": {"threadId": self.id}})
            return {"status": "unsubscribed"}
        raise Refused(f"Invalid request: unknown variant `{method}`")

    def tell(self, method, **params):
        """A notification about this thread."""
        params = {"threadId": self.id, "turnId": self.turn, **params}
        self.server.say({"method": method, "params": params})

    def end(self, status, error=None):
        """The end of the turn."""
        self.tell("turn/completed", turn={"id": self.turn, "status": status, "error": error})

    def answer(self, params):
        """One turn, on a thread of its own."""
        # As the real one: what it was told comes back, in one line.
        self.tell("item/completed", item={"type": "userMessage", "id": "msg_0", "content": params["input"]})
        prompt = "".join(p["text"] if p["type"] == "text" else f"<{p['url'][:14]}>" for p in params["input"])
        orders = misdeeds.Directives(prompt)
        if "deaf" in orders:
            # Neither answers nor obeys an interrupt.
            time.sleep(misdeeds.FOREVER_S)
        if "wait" in orders:
            self.stop.wait(misdeeds.FOREVER_S)
            self.end("interrupted")
            return
        with self.server.speaking:
            misdeeds.before_the_answer(orders)
        if "ask_approval" in orders:
            asked = {"threadId": self.id, "command": ["cat", "/etc/passwd"]}
            self.server.say({"id": "q1", "method": "item/commandExecution/requestApproval", "params": asked})
            self.server.answered.wait(10)
        if "fail" in orders:
            info = FAILURES[orders["fail"]["how"]]
            self.end("failed", {"message": "stub sk-secret http://127.0.0.1/v1", "codexErrorInfo": info})
            return
        if "odd_shapes" in orders:
            self.tell("thread/tokenUsage/updated", tokenUsage="plenty")
            self.tell("item/completed", item=["agentMessage"])
            self.tell("item/agentMessage/delta", delta={"text": "no"})
        text = self.said(orders, prompt, params)
        if not self.stream(text, orders):
            self.end("interrupted")
            return
        usage = {"inputTokens": 1000, "cachedInputTokens": 600, "cacheWriteInputTokens": 0}
        usage.update(outputTokens=len(text.split()), reasoningOutputTokens=0)
        if "call" in orders:
            self.ask_for(orders["call"], usage)
            return
        if "no_usage" not in orders:
            self.tell("thread/tokenUsage/updated", tokenUsage={"total": usage, "last": usage})
        if "twice" in orders:
            # As the real one does when a model asks for a tool that nobody gave it.
            total = {name: 2 * count for name, count in usage.items()}
            self.tell("thread/tokenUsage/updated", tokenUsage={"total": total, "last": usage})
            self.stop.wait(misdeeds.FOREVER_S)
            self.end("interrupted")
            return
        self.end("completed")

    def ask_for(self, order, usage):
        """A call of a tool, as the model wrote it; the turn waits for what the tool gives, and goes on with that."""
        call = {"type": "function_call", "call_id": "call_1", "name": order["name"], "arguments": order["arguments"]}
        if self.params.get("experimentalRawEvents"):
            # What was injected comes back first, with a turn id of its own.
            for item in self.earlier:
                self.tell("rawResponseItem/completed", turnId="auto-compact-0", item=item)
            self.tell("rawResponseItem/completed", item=call)
        if any(tool["name"] == order["name"] for tool in self.params["dynamicTools"]):
            asked = {"threadId": self.id, "turnId": self.turn, "callId": "call_1", "tool": order["name"]}
            self.server.say({"id": 0, "method": "item/tool/call", "params": asked})
        if self.params.get("experimentalRawEvents"):
            self.tell("rawResponse/completed", responseId="resp_1", usage=usage)
        if self.stop.wait(2) or self.server.answered.wait(0):
            self.tell("thread/tokenUsage/updated", tokenUsage={"total": usage, "last": usage})
        if self.stop.is_set():
            self.end("interrupted")
            return
        self.tell("item/agentMessage/delta", itemId="msg_2", delta="a second call")
        self.end("completed")

    def said(self, orders, prompt, params):
        """The text of the answer."""
        if "empty" in orders:
            return ""
        if "report" in orders:
            return misdeeds.report()
        if "bulky" in orders:
            return "x" * int(orders.number("bulky", "bytes", 0))
        if "say" in orders:
            return orders["say"]["json"]
        if "told" in orders:
            return json.dumps({"thread": self.params, "turn": params, "earlier": self.earlier})
        if "count" in orders:
            return str(len(prompt))
        if "ask_approval" in orders:
            return json.dumps(self.server.last_answer)
        return '{"echo":"yes"}' if "outputSchema" in params else f"echo: {orders.text}"

    def stream(self, text, orders):
        """The answer in pieces; False where the turn was interrupted."""
        count = max(2, int(orders.number("slow", "count", 2)))
        size = max(1, -(-len(text) // count))
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        for number, piece in enumerate(pieces):
            self.tell("item/agentMessage/delta", itemId="msg_1", delta=piece)
            if self.stop.wait(orders.number("slow", "delay", 0)):
                return False
            if number == len(pieces) // 2 - 1:
                with self.server.speaking:
                    misdeeds.in_the_middle(orders)
        self.tell("item/completed", item={"type": "agentMessage", "id": "msg_1", "text": text})
        return True


if __name__ == "__main__":
    sys.exit(main())
