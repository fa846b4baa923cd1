"""The CLIs as one would call them without a bridge: a process for each answer."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from benchmarks import lab
from bridge.providers import claude_wire, codex_wire
from tests.real_cli.install import binaries

CLAUDE_MODEL, CODEX_MODEL = "claude-sonnet-5-5", "gpt-6-sol"


def run_cold(argv: list[str], env: dict[str, str], cwd: Path, prompt: str = "") -> float:
    """A CLI from start to end."""

    def call() -> None:
        done = subprocess.run(argv, env=env, cwd=cwd, input=prompt, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (done.stdout[-500:], done.stderr[-500:])

    return lab.timed(call)


class Colds:
    """Runs of both CLIs in folders of their own below `work`."""

    def __init__(self, url: str, work: Path, *, keep_home: bool = False) -> None:
        """`url` is the stand-in's. With `keep_home` a CLI finds what its last run left, as it would for a person;
        else every run is a first one."""
        self._url = url
        self._work = work
        self._keep_home = keep_home
        self._binaries = binaries()
        self._catalog = work / "models.json"
        listed = subprocess.run(
            [self._binaries.codex, "debug", "models"], env=self._env("list"), capture_output=True, text=True
        )
        self._catalog.write_text(json.dumps(codex_wire.catalog_without_tools(json.loads(listed.stdout))))

    def _env(self, name: str) -> dict[str, str]:
        home = self._work / name
        if not self._keep_home:
            shutil.rmtree(home, ignore_errors=True)
        home.mkdir(exist_ok=True)
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "CODEX_HOME": str(home),
            "ANTHROPIC_BASE_URL": self._url,
            "ANTHROPIC_API_KEY": lab.FAKE_KEY,
            codex_wire.KEY_VARIABLE: lab.FAKE_KEY,
        }

    def claude_default(self) -> float:
        argv = [str(self._binaries.claude), "-p", "hello", "--model", CLAUDE_MODEL]
        return run_cold(argv, self._env("claude-default"), self._work)

    def claude_lean(self) -> float:
        # As a one-off: the prompt as an argument, and text out.
        dropped = {"--input-format", "--output-format", "stream-json", "--verbose", "--include-partial-messages"}
        flags = [f for f in claude_wire.arguments(CLAUDE_MODEL, gated=True) if f not in dropped]
        env = {
            **self._env("claude-lean"),
            **claude_wire.environment(timeout_s=60, idle_timeout_s=60, max_output_tokens=8192),
        }
        return run_cold([str(self._binaries.claude), *flags, "hello"], env, self._work)

    def codex_default(self) -> float:
        return self._codex("codex-default")

    def codex_quiet(self) -> float:
        """With its analytics off, which hold up its end."""
        return self._codex("codex-quiet", "-c", "analytics.enabled=false")

    def _codex(self, home: str, *more: str) -> float:
        provider = [
            *("-c", 'model_provider="bench"', "-c", 'model_providers.bench.name="bench"'),
            *("-c", f'model_providers.bench.base_url="{self._url}/v1"'),
            *("-c", f'model_providers.bench.env_key="{codex_wire.KEY_VARIABLE}"'),
            *("-c", 'model_providers.bench.wire_api="responses"'),
        ]
        argv = [str(self._binaries.codex), "exec", "--skip-git-repo-check", *provider]
        return run_cold([*argv, *more, f"--model={CODEX_MODEL}", "hello"], self._env(home), self._work)

    def codex_lean(self) -> float:
        env = self._env("codex-lean")
        flags = codex_wire.arguments(
            base_url=f"{self._url}/v1", idle_timeout_s=60, catalog=str(self._catalog), sqlite_home=env["HOME"]
        )
        argv = [str(self._binaries.codex), "exec", "--skip-git-repo-check", *flags[2:]]
        return run_cold([*argv, f"--model={CODEX_MODEL}", "hello"], env, self._work)
