"""Every command explains itself, tells a mistake in one line with exit code 2, and leaves nothing behind."""

import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from phenaki_jax import __version__
from phenaki_jax.cli import demo
from phenaki_jax.cli.main import COMMANDS, main
from phenaki_jax.inference.phenaki import Phenaki


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert f"  phenaki {command} " in capsys.readouterr().out


def test_help_lists_the_commands_and_loads_nothing_slow() -> None:
    program = (
        "import sys\n"
        "from phenaki_jax.cli.main import main\n"
        "try: main(['--help'])\n"
        "finally: print([name for name in ('jax', 'flax', 'numpy', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(COMMANDS) <= {line.split()[0] for line in done.stdout.splitlines() if line.startswith("    ")}
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            "evaluate --exmaples 3",
            "unrecognized argument --exmaples; did you mean --examples? see phenaki evaluate --help",
        ),
        ("train --Workdir runs", "unrecognized argument --Workdir; did you mean --workdir? see phenaki train --help"),
        ("inspect a b", "unrecognized arguments: b; see phenaki inspect --help"),
        ("train --zzz", "unrecognized argument --zzz; see phenaki train --help"),
        ("--zzz", "unrecognized argument --zzz; see phenaki --help"),
        (
            "prepare videos --work_dir 3",
            "unrecognized argument --work_dir; did you mean --workers? see phenaki prepare --help",
        ),
        (
            "trian --workdir runs",
            f"found command 'trian', did you mean train? expected one of {', '.join(COMMANDS)}; see phenaki --help",
        ),
    ],
)
def test_unknown_arguments_are_told_with_what_was_meant(
    arguments: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    assert capsys.readouterr().err == f"phenaki: error: {told}\n"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["train", "--workdir", "", "--gin_file", "a.gin"], "--workdir"),
        (["train", "--workdir", "run", "--gin_file", "a.gin", "--gin_file", ""], "--gin_file"),
        (["prepare", "", "--out", "data"], "INPUT"),
        (["prepare", "videos", "--out="], "--out"),
        (["generate", "--model", "model", "--prompt", "", "--out", "a.gif", "--preview", ""], "--preview"),
        (["generate", "--model", "model", "--story", "", "--out", "a.gif"], "--story"),
        (["generate", "--model", "model", "--prompt", "a", "--video", "", "--out", "a.gif"], "--video"),
        (["inspect", ""], "PATH"),
    ],
)
def test_an_empty_path_is_refused(
    words: list[str], name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As of a variable that is not set; it would mean the current folder."""
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    told = f"found an empty {name}, expected a path; name one, . for the current folder; see phenaki {words[0]} --help"
    assert capsys.readouterr().err == f"phenaki: error: {told}\n"
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"phenaki_jax {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_is_known(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    usage = capsys.readouterr().out.partition("\n\n")[0]
    options = re.findall(r"--[\w-]+", usage)
    assert options
    assert main([command, *options, "--zzz"]) == 2
    assert f"unrecognized argument --zzz; see phenaki {command}" in capsys.readouterr().err


def test_a_prompt_may_begin_with_hyphens(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "--model", str(tmp_path), "--prompt", "--a dog walks", "--out", str(tmp_path / "a.gif")]
    assert main(words) == 2
    assert "model.json" in capsys.readouterr().err


def test_an_interruption_while_tensorflow_loads_is_told() -> None:
    """Its own words are hidden while it loads, and an interruption's are not."""
    program = (
        "import os, signal, sys\n"
        # What is started in the background may have been told to ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from phenaki_jax.cli.main import _reliable_interrupts\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'seqio': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "with _reliable_interrupts():\n"
        "    import phenaki_jax.data.tensorflow_stack\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "phenaki: interrupted\n")


def test_what_training_needs_is_named_where_it_is_not_installed() -> None:
    """As in an environment that has what drawing needs alone."""
    program = (
        "import sys\n"
        "sys.modules['gin'] = None\n"
        "from phenaki_jax.cli.main import main\n"
        "sys.exit(main(['train', '--gin_file', 'a.gin', '--workdir', 'runs']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "phenaki: error: gin is not installed, which this command needs: install phenaki_jax with all it depends on"
    )


GENERATE = "generate --model {model} --out {empty}/a.mp4"
MISTAKES = {
    "no command": "",
    "unknown command": "paint",
    "unknown argument": f"{GENERATE} --prompt a --colour red",
    "no prompt": GENERATE,
    "prompt and story": f"{GENERATE} --prompt a --story a.yaml",
    "no number": f"{GENERATE} --prompt a --seed one",
    "gin where there is none": f"{GENERATE} --prompt a --gin.STEPS=2",
    "no model": "generate --model {empty} --prompt a --out {empty}/a.mp4",
    "unknown suffix": "generate --model none --prompt a --out {empty}/a.avi",
    "no folder for the output": "generate --model none --prompt a --out {empty}/none/a.mp4",
    "empty prompt": f"{GENERATE} --prompt ''",
    "long prompt": f"{GENERATE} --prompt {'a' * 30}",
    "long second prompt": f"{GENERATE} --prompt a --prompt {'a' * 30}",
    "no frames": f"{GENERATE} --prompt a --frames 0",
    "a lifetime": f"{GENERATE} --prompt a --seconds 1e10",
    "a folder that takes no files": "generate --model {model} --prompt a --out /proc/a.gif",
    "no time": f"{GENERATE} --prompt a --seconds 0",
    "no end of time": f"{GENERATE} --prompt a --seconds inf",
    "no number of seconds": f"{GENERATE} --prompt a --seconds nan",
    "no number of frames a second": f"{GENERATE} --prompt a --seconds 3 --fps nan",
    "endless frames a second": f"{GENERATE} --prompt a --seconds 3 --fps inf",
    "no frame rate": f"{GENERATE} --prompt a --fps 0",
    "no steps": f"{GENERATE} --prompt a --steps 0",
    "negative guidance": f"{GENERATE} --prompt a --guidance -1",
    "negative seed": f"{GENERATE} --prompt a --seed -1",
    "wrong story": f"{GENERATE} --story {{inputs}}/wrong.yaml",
    "no story": f"{GENERATE} --story {{empty}}/story.yaml",
    "frames of a story": f"{GENERATE} --story {{inputs}}/story.yaml --frames 5",
    "no frames of a story": f"{GENERATE} --story {{inputs}}/story.yaml --frames 0",
    "broken image": f"{GENERATE} --prompt a --image {{inputs}}/broken.gif",
    "broken video": "reconstruct --model {model} --out {empty}/a.mp4 --video {inputs}/broken.gif",
    "nothing to export": "export --workdir {empty} --out {empty}/model",
    "nothing to inspect": "inspect {empty}",
    "pictures of a model": "inspect {model} --out {empty}/grid.png",
    "no gin file": "train --workdir {empty}/run",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line_and_leaves_nothing(
    mistake: str, folder: pathlib.Path, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    empty, inputs = tmp_path / "empty", tmp_path / "inputs"
    empty.mkdir()
    inputs.mkdir()
    (inputs / "story.yaml").write_text("scenes: [{prompt: a}]")
    (inputs / "wrong.yaml").write_text("scenes: [{prompt: a, wndows: 2}]")
    (inputs / "broken.gif").write_bytes(b"GIF89a")
    assert main(shlex.split(MISTAKES[mistake].format(model=folder, empty=empty, inputs=inputs))) == 2
    told = capfd.readouterr()
    assert told.err.startswith("phenaki: error: ")
    assert len(told.err.splitlines()) == 1
    assert told.out == ""
    assert list(empty.iterdir()) == []


def test_what_goes_on_where_it_was_interrupted_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", failing)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "phenaki: interrupted; the same command goes on\n"


@pytest.mark.parametrize(
    ("error", "exit_code", "told"),
    [
        (KeyboardInterrupt(), 130, "phenaki: interrupted\n"),
        (OSError(28, "No space left on device"), 2, "phenaki: error: [Errno 28] No space left on device\n"),
    ],
)
def test_interruptions_and_full_disks_are_told_in_one_line(
    error: BaseException,
    exit_code: int,
    told: str,
    folder: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(Phenaki, "draw_windows", failing)
    assert main(["generate", "--model", str(folder), "--prompt", "a", "--out", str(tmp_path / "a.gif")]) == exit_code
    assert capsys.readouterr().err == told
    assert list(tmp_path.iterdir()) == []


def test_a_bug_keeps_its_traceback(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Phenaki, "load", failing)
    with pytest.raises(ZeroDivisionError):
        main(["generate", "--model", str(folder), "--prompt", "a", "--out", "a.gif"])


def test_ctrl_c_where_exceptions_are_swallowed_is_heard_a_little_later(
    folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python swallows those out of what it calls while garbage is collected, and prints them."""

    class Garbage:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def drawing(*_: object) -> None:
        Garbage()
        time.sleep(100)
        pytest.fail("nothing was heard of it")

    monkeypatch.setattr(Phenaki, "draw_windows", drawing)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = main(["generate", "--model", str(folder), "--prompt", "a", "--out", str(tmp_path / "a.gif")])
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130
    assert capsys.readouterr().err == "phenaki: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_a_story_that_is_being_written(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Exit code 130, one line, and neither a video nor what there was of it."""
    command = f"generate --model {folder} --prompt circle --frames 1000000 --out {tmp_path}/a.mp4"
    # A shell may have started the tests with SIGINT ignored, which would be inherited.
    program = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from phenaki_jax.cli.main import run_process\n"
        f"sys.argv = ['phenaki', *{command.split()!r}]\n"
        "run_process()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not any(tmp_path.iterdir()):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=300)
    assert process.returncode == 130
    assert told == "phenaki: interrupted\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="a tunable of glibc")
@pytest.mark.parametrize("program", [["-m", "phenaki_jax.cli.main"], ["-m", "phenaki_jax.train"]])
@pytest.mark.parametrize(
    ("before", "forgetful", "begun"),
    [
        ({}, "", ["None", "glibc.malloc.hugetlb=1"]),
        ({}, "GLIBC_TUNABLES", ["None"] * 2),
        ({"GLIBC_TUNABLES": ""}, "", [""]),
    ],
)
def test_a_command_begins_anew_with_large_pages_at_most_once(
    program: list[str], before: dict[str, str], forgetful: str, begun: list[str], tmp_path: pathlib.Path
) -> None:
    """Each interpreter tells the variable as it begins; one is of a system that forgets it."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, sys\nos.environ.pop({forgetful!r}, None)\nprint(os.environ.get('GLIBC_TUNABLES'), file=sys.stderr)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | before
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *filter(None, [environment.get("PYTHONPATH")])])
    command = [sys.executable, *program, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60)
    assert done.stdout.startswith("usage: phenaki")
    assert done.stderr.splitlines() == begun


def test_a_program_of_its_own_is_not_begun_anew() -> None:
    program = (
        "print('begun', flush=True)\nfrom phenaki_jax.cli.main import run_process\nrun_process(['inspect', '/none'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-"], input=program, capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert (done.stdout, done.returncode) == ("begun\n", 2)


def test_a_signal_while_modules_are_loaded_ends_the_process_at_once(tmp_path: pathlib.Path) -> None:
    (tmp_path / "slow_module.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    program = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from phenaki_jax.cli import main\n"
        "def run(command): import slow_module\n"
        "main._module = run\n"
        "main.run_process(['inspect', 'x'])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout, done.stderr, done.returncode) == ("", "phenaki: interrupted\n", 130)


def test_gin_bindings_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def record(*args: object, **options: object) -> None:
        seen.append((*args, options))

    monkeypatch.setattr("phenaki_jax.training.train.run", record)
    words = "train --gin_file a.gin --gin_file b.gin --workdir run --gin.STEPS=2 --gin.train.seed=3 --dry_run"
    assert main(words.split()) == 0
    assert seen == [(["a.gin", "b.gin"], ["STEPS=2", "train.seed=3"], "run", {"dry_run": True})]
