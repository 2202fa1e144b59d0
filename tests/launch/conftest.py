"""Launchers run with nothing on their path but these tools and fake commands, which record how they are called."""

import pathlib
import shutil
import subprocess
from collections.abc import Mapping

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
TOOLS = (
    *("bash", "cat", "dirname", "env", "git", "grep", "id", "kill", "mkdir", "nohup", "python3", "rm", "sed", "setsid"),
    *("sh", "sleep", "tail", "tar", "tee"),
)
WORD, CALL = "\x1f", "\x1e"
FAKE = """#!/usr/bin/env bash
printf -v call '%s\x1f' "${{0##*/}}" "$@"
printf '%s\x1e' "$call" >>{calls}
{script}
"""


class Machine:
    """A home, a path with few commands, and what the fake ones among them were called with.

    Attributes:
      home: the folder that scripts begin in.
    """

    def __init__(self, home: pathlib.Path) -> None:
        self.home = home
        self._bin = home / "bin"
        self._calls = home / "calls"
        self._bin.mkdir()
        for tool in TOOLS:
            (self._bin / tool).symlink_to(shutil.which(tool) or tool)

    def fake(self, name: str, script: str = "exit 0") -> pathlib.Path:
        """A command that records its arguments and does what a line of bash says."""
        file = self._bin / name
        # It may be a link to the tool itself.
        file.unlink(missing_ok=True)
        file.write_text(FAKE.format(calls=self._calls, script=script))
        file.chmod(0o755)
        return file

    def calls(self) -> list[list[str]]:
        """Names and arguments of the fake commands, in order."""
        told = self._calls.read_text() if self._calls.exists() else ""
        return [call.split(WORD)[:-1] for call in told.split(CALL)[:-1]]

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Of a script."""
        return {"PATH": str(self._bin), "HOME": str(self.home), "PAUSE": "0", **more}

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs one of launch/ to its end."""
        return subprocess.run(
            [str(LAUNCH / script), *arguments],
            cwd=self.home,
            env=self.environment(environment),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def commands(self, script: str, *arguments: str, **environment: str) -> list[list[str]]:
        """What a dry run prints, as a shell would read it: words of each command; comments are left out."""
        done = self.run(script, "--dry_run", *arguments, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert not self.calls()
        lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
        words = 'for word in "$@"; do printf "%s\\0" "$word"; done; echo'
        read = "\n".join(f"show {line}" for line in lines)
        shown = subprocess.run(["bash", "-c", f"show() {{ {words}; }}\n{read}"], capture_output=True, text=True)
        return [line.split("\0")[:-1] for line in shown.stdout.splitlines()]


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    """A new one."""
    return Machine(tmp_path)


@pytest.fixture
def launch() -> pathlib.Path:
    """The folder of the launchers."""
    return LAUNCH
