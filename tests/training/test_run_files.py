"""Run files say what they are asked to, and a mistake in one is told in one short line."""

from pathlib import Path

import gin
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.training import run_files

gin.constant("THIRTY", 30)
TOKENIZER = "gin_configs/runs/shapes_tokenizer.gin"


def test_bindings_go_over_files() -> None:
    run_files.configure([TOKENIZER], ["DATA_DIR='data'", "STEPS=77", "loop.Schedule.log_every=3"])
    assert gin.query_parameter("loop.Schedule.log_every") == 3
    assert gin.query_parameter("STEPS/gin.macro.value") == 77


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        ("STEPZ=77", "no file has a macro STEPZ.*did you mean STEPS?"),
        ("steps=77", "no file has a macro steps.*did you mean STEPS?"),
        ("=77", "found --gin.=77, expected --gin.NAME=VALUE"),
        ("loop.Schedule.stepz=1", "stepz.*did you mean steps. it has steps, "),
        ("loop.Shedule.steps=1", "loop.Shedule.*did you mean loop.Schedule?"),
        ("nothing.at_all=1", "nothing.at_all.*a run file knows the settings of modules that it imports"),
        ("STEPS=", "gin configuration"),
        ("STEPS=[1", "gin configuration: found --gin.STEPS=.1, expected a value of Python"),
    ],
)
def test_an_unknown_name_is_refused_in_one_line(binding: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        run_files.configure([TOKENIZER], ["DATA_DIR='data'", binding])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        ("STEPS='many'", "a value of type str, expected int as \\d+"),
        ("STEPS=120.5", "a value of type float, expected int"),
        ("LEARNING_RATE='small'", "a value of type str, expected float"),
        ("MIXTURE=3", "a value of type int, expected str"),
    ],
)
def test_a_value_of_another_type_is_refused(binding: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        run_files.configure([TOKENIZER], ["DATA_DIR='data'", binding])


def test_a_text_without_quotes_is_told() -> None:
    told = r"found --gin\.MIXTURE=moving_shapes_joint, .*: put texts in quotes"
    with pytest.raises(UserError, match=told):
        run_files.configure([TOKENIZER], ["DATA_DIR='data'", "MIXTURE=moving_shapes_joint"])


def test_a_file_of_a_model_alone_is_no_run_file() -> None:
    with pytest.raises(UserError, match=r"models/shapes\.gin says nothing of a training"):
        run_files.configure(["gin_configs/models/shapes.gin"], [])


def test_a_missing_run_file_is_told() -> None:
    with pytest.raises(UserError, match=r"found no gin file nowhere\.gin"):
        run_files.configure(["nowhere.gin"], [])


INCLUDES = f'from __gin__ import dynamic_registration\ninclude "{TOKENIZER}"\n'


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("STPES = 30", "found STPES in {file}, which nothing uses; did you mean STEPS? "),
        ("STEPS = %STPES", "found %STPES, which no file sets; did you mean STEPS? "),
        ("STEPS = %NOPE", "found %NOPE, which no file sets; set it or mend its name"),
        ("STEPS = [1", "found a bracket or quote that is not closed in {file}"),
        ("STEPS 30", "expected ':' or '=' in {file}, line 3"),
        ("STEPS = thirty", "failed to parse token 'thirty' in {file}, line 3; .* texts in quotes"),
        ("loop.Schedule.steps = 3", "'loop' was not provided .* or import it"),
        (
            "from phenaki_jax.training import lop",
            "No module named 'phenaki_jax.training.lop' in file \"{file}\", line 3",
        ),
        (
            "from phenaki_jax.training import loop\nloop.Shedule.steps = 3",
            "phenaki_jax.training.loop has no Shedule in .*; did you mean Schedule?",
        ),
        ("include 'nowhere.gin'", 'found no file nowhere.gin in file "{file}", line 3 .*; files are looked for from '),
        ("STEPS = {{[]: 1}}", "unhashable"),
        ("MIXTURE = 'caf\xe9'", "found bytes that are no text in {file} .* expected UTF-8"),
    ],
)
def test_a_mistake_in_a_file_is_told_in_one_short_line(line: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "my.gin"
    file.write_bytes(f"{INCLUDES}{line}\n".encode("latin-1"))
    with pytest.raises(UserError, match=told.replace("?", r"\?").format(file=file)) as caught:
        run_files.configure([str(file)], ["DATA_DIR='data'"])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value).replace(str(file), "")) < 300


@pytest.mark.parametrize(
    "lines",
    [
        "STEPS_OF_MINE = 30\nSTEPS = %STEPS_OF_MINE\nLR_NOTE = 'as %STEPZ in notes'",
        "mine/STEPS = 30\nSTEPS = %mine/STEPS",
        "STEPS = %THIRTY",
        "STEPS = 30\nSTEPZ = 'its own file sets STEPS too'",
        "STEPS = 30\nNOTES = 'a'\nOUT_DIR = 'b'\nTRAIN_STEPS = 2\nEVAL_BATCH_SIZE = 3\nBASE_LEARNING_RATE = 1.0",
    ],
)
def test_what_gin_allows_is_not_in_the_way(lines: str, tmp_path: Path) -> None:
    file = tmp_path / "my.gin"
    file.write_text(f"{INCLUDES}{lines}\n")
    run_files.configure([str(file)], ["DATA_DIR='data'"])
    assert gin.get_bindings("Schedule")["steps"] == 30


def test_what_a_run_file_leaves_open_is_asked_for() -> None:
    with pytest.raises(
        UserError, match=r"^gin configuration: DATA_DIR must be set, .* --gin\.DATA_DIR=VALUE; put texts"
    ):
        run_files.configure([TOKENIZER], [])


def test_a_misspelt_run_file_is_told_with_the_nearest() -> None:
    told = "found no gin file gin_configs/runs/video_tokenizer.gin, did you mean gin_configs/runs/videos_tokenizer.gin"
    with pytest.raises(UserError, match=told):
        run_files.configure(["gin_configs/runs/video_tokenizer.gin"], [])


def test_a_folder_is_no_run_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which is no file, expected a run file"):
        run_files.configure([str(tmp_path)], [])


def test_a_byte_order_mark_is_told(tmp_path: Path) -> None:
    """Which editors on Windows write, and gin tells as an unexpected token."""
    file = tmp_path / "my.gin"
    file.write_text(INCLUDES, encoding="utf-8-sig")
    with pytest.raises(UserError, match=r"found a byte order mark at the beginning of .*my\.gin, expected UTF-8 with"):
        run_files.configure([str(file)], ["DATA_DIR='data'"])


def test_files_elsewhere_find_those_of_the_project_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "my.gin").write_text(INCLUDES)
    monkeypatch.chdir(tmp_path)
    run_files.configure(["my.gin"], ["DATA_DIR='data'"])
    assert not caplog.messages


def test_a_file_that_includes_itself_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "my.gin"
    file.write_text(f"include '{file}'\n")
    with pytest.raises(UserError, match=r"found a file that includes itself in .*my\.gin; take"):
        run_files.configure([str(file)], [])
