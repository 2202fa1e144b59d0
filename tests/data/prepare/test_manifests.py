"""Tables are read row by row: what is wrong with a row is told of that row, and the others are read."""

import json
import pathlib

import pytest

from phenaki_jax.data.prepare.manifests import read_manifest
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.sources import Problem, Source
from phenaki_jax.errors import UserError


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """With files that tables can name."""
    for name in ("a.mp4", "b.webm", "c.png", "notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


def read(path: pathlib.Path, text: str | bytes, **settings: object) -> list[Source | Problem]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read_manifest(path, PrepareSettings(**settings)))


def in_short(found: list[Source | Problem]) -> list[tuple[str, object]]:
    return [(each.key, each.captions if isinstance(each, Source) else each.reason) for each in found]


def test_rows_of_csv_are_files_with_captions(folder: pathlib.Path) -> None:
    text = 'file,caption,start,end\na.mp4,"a dog, running",0,2.5\nb.webm,"a\ncat",,\nc.png,,,\n'
    found = read(folder / "table.csv", text)
    assert in_short(found) == [("a.mp4", ("a dog, running",)), ("b.webm", ("a cat",)), ("c.png", ())]
    assert [(each.start, each.end) for each in found] == [(0, 2.5), (0, -1), (0, -1)]
    assert found[0].place.path == str(folder / "a.mp4")


def test_a_zero_byte_in_a_caption_costs_the_byte(folder: pathlib.Path) -> None:
    found = read(folder / "table.csv", b"file,caption\na.mp4,a dog\0 runs\n")
    assert in_short(found) == [("a.mp4", ("a dog runs",))]


def test_several_captions_are_a_list_in_json(folder: pathlib.Path) -> None:
    found = read(folder / "table.csv", 'video,captions\na.mp4,"[""one"", ""two""]"\n')
    assert in_short(found) == [("a.mp4", ("one", "two"))]
    lines = [{"video": "a.mp4", "captions": ["one", "two"]}, {"image": "c.png", "caption": "three", "start": None}]
    found = read(folder / "table.jsonl", "\n\n".join(map(json.dumps, lines)))
    assert in_short(found) == [("a.mp4", ("one", "two")), ("c.png", ("three",))]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.mp4", "found 1 value, expected 2, one of each column"),
        ("gone.mp4,x", "found no file 'gone.mp4'"),
        (",x", "found nothing in file, video, image, expected the name of a file in one of them"),
        ("notes.txt,x", "found ending '.txt', expected one of .mp4"),
        ('"a.mp4,x', "a quote is not closed"),
        ('a"b".mp4,"x"y', "cannot be read"),
    ],
)
def test_a_bad_row_of_csv_is_told_with_its_line_and_nothing_else_is_lost(
    folder: pathlib.Path, row: str, reason: str
) -> None:
    rows = ["a.mp4,good"] * 50
    found = read(folder / "table.csv", "\n".join(["file,caption", *rows, row, *rows]))
    problems = [each for each in found if isinstance(each, Problem)]
    assert [problem.key for problem in problems] == ["table.csv, line 52"]
    assert reason in problems[0].reason
    assert len(found) == 101


@pytest.mark.parametrize("rows", [['"a.mp4,broken', 'b"webm,broken'], ['a.mp4,"broken', 'b.webm,"broken'], ['"', 'x"']])
def test_two_bad_rows_with_odd_quotes_lose_none_between(folder: pathlib.Path, rows: list[str]) -> None:
    good = [f"a.mp4,{number}" for number in range(20)]
    found = read(folder / "table.csv", "\n".join(["file,caption", *good, rows[0], *good, rows[1], *good]))
    assert [each.key for each in found if isinstance(each, Problem)] == ["table.csv, line 22", "table.csv, line 43"]
    assert len(found) == 62


def test_a_caption_goes_over_several_lines(folder: pathlib.Path) -> None:
    found = read(folder / "table.csv", 'file,caption\na.mp4,"a\n\n""red""\ncat"\nb.webm,a dog\n')
    assert in_short(found) == [("a.mp4", ('a "red" cat',)), ("b.webm", ("a dog",))]


@pytest.mark.parametrize("name", ["x" * 300 + ".mp4", "\\ud800.mp4", "a\\u0000b.mp4"])
def test_a_name_that_no_file_can_have_is_one_bad_row(folder: pathlib.Path, name: str) -> None:
    bad, good = read(folder / "table.jsonl", f'{{"file": "{name}"}}\n{{"file": "a.mp4"}}')
    assert bad.reason.startswith("found no file '")
    assert len(bad.reason) < 320
    assert good.key == "a.mp4"


def test_a_table_in_utf16_is_read(folder: pathlib.Path) -> None:
    assert in_short(read(folder / "table.csv", "file,caption\na.mp4,ein Fuß\nb.webm,x\n".encode("utf-16"))) == [
        ("a.mp4", ("ein Fuß",)),
        ("b.webm", ("x",)),
    ]
    assert in_short(read(folder / "table.jsonl", '{"file": "a.mp4", "caption": "ein Fuß"}\n'.encode("utf-16"))) == [
        ("a.mp4", ("ein Fuß",))
    ]


@pytest.mark.parametrize("mark", ["\t", ";"])
def test_what_spreadsheets_write_between_values_is_read(folder: pathlib.Path, mark: str) -> None:
    found = read(folder / "table.csv", f'file{mark}caption\na.mp4{mark}"a dog{mark} running, fast"\n'.encode("utf-16"))
    assert in_short(found) == [("a.mp4", (f"a dog{' ' if mark.isspace() else mark} running, fast".replace("  ", " "),))]


def test_a_tsv_has_tabs_whatever_else_its_first_line_has(folder: pathlib.Path) -> None:
    text = 'file\tcaption\tone, two\na.mp4\ta dog, running\t1\nb.webm\t"a\tcat"\t2\n'
    found = read(folder / "table.tsv", text, ignored_columns=("one, two",))
    assert in_short(found) == [("a.mp4", ("a dog, running",)), ("b.webm", ("a cat",))]
    (folder / "a,b.mp4").touch()
    assert in_short(read(folder / "table.TSV", "file\na,b.mp4\n")) == [("a,b.mp4", ())]


def test_quotes_between_tabs_may_be_quotes_and_nothing_else(folder: pathlib.Path) -> None:
    """As most programs write captions there; what is quoted as in a csv is that."""
    text = 'file\tcaption\na.mp4\ta 5" pipe\na.mp4\t"Hello" he says\nb.webm\t"a ""big"" cat"\nb.webm\t"a\nhound"\n'
    assert in_short(read(folder / "table.tsv", text)) == [
        ("a.mp4", ('a 5" pipe',)),
        ("a.mp4", ('"Hello" he says',)),
        ("b.webm", ('a "big" cat',)),
        ("b.webm", ("a hound",)),
    ]


def test_columns_may_be_in_capitals(folder: pathlib.Path) -> None:
    found = read(folder / "table.csv", "File,CAPTION,Split\na.mp4,a dog,test\n")
    assert [(each.key, each.captions, each.split) for each in found] == [("a.mp4", ("a dog",), "test")]
    found = read(folder / "table.jsonl", '{"Video": "a.mp4", "Caption": "a dog"}\n{"video": "b.webm", "START": 2}')
    assert [(each.key, each.captions, each.start) for each in found] == [("a.mp4", ("a dog",), 0), ("b.webm", (), 2)]
    with pytest.raises(UserError, match=r"found unknown column 'Titel', .* --ignore_columns Titel$"):
        read(folder / "table.csv", "File,Titel\na.mp4,x\n")
    for ignored in ("titel", "TITEL"):
        found = read(folder / "table.csv", "File,Titel\na.mp4,x\n", ignored_columns=(ignored,))
        assert in_short(found) == [("a.mp4", ())]
    # One that is ignored is none of these, however it is written.
    found = read(folder / "table.csv", "file,Caption,caption\na.mp4,a dog,a hound\n", ignored_columns=("Caption",))
    assert in_short(found) == [("a.mp4", ("a hound",))]


def test_a_column_that_is_there_twice_is_refused(folder: pathlib.Path) -> None:
    for twice in ("caption", "Caption"):
        told = rf"found column 'caption' 2 times, expected it once \('{twice}', 'caption'\): rename one"
        with pytest.raises(UserError, match=told):
            read(folder / "table.csv", f"file,{twice},caption\na.mp4,a dog,a hound\n")
    bad, good = read(folder / "table.jsonl", '{"file": "a.mp4", "File": "b.webm"}\n{"file": "a.mp4"}')
    assert bad.reason == "cannot be read (found column 'file' 2 times, once as 'File', expected it once)"
    assert good.key == "a.mp4"


def test_a_row_tells_its_split(folder: pathlib.Path) -> None:
    found = read(folder / "table.csv", "file,split\na.mp4,test\nb.webm,train\nc.png,\na.mp4,validation\n")
    assert [each.split for each in found[:3]] == ["test", "train", ""]
    assert found[3].reason == "found split 'validation', expected train or test, or nothing"
    found = read(folder / "table.csv", "file,split\na.mp4,validation\n", ignored_columns=("split",))
    assert found[0].split == ""


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"file": "a.mp4"', "cannot be read"),
        (
            '{"caption": "of nothing"}',
            "found nothing in file, video, image, expected the name of a file in one of them",
        ),
        ('{"file": 3}', "found an int (3) as file, expected the name of a file, in quotes"),
        ('{"video": ["a.mp4"]}', "found a list (['a.mp4']) as video, expected the name of a file, in quotes"),
        ('{"file": "a.mp4", "start": true}', "found start True, expected seconds"),
        (f'{{"file": "a.mp4", "start": {"9" * 400}}}', "found start 999999"),
        (f'{{"file": "a.mp4", "start": {"9" * 5000}}}', "cannot be read"),
        ('["a.mp4"]', "found a list, expected an object"),
        ('{"file": "a.mp4", "start": 3, "end": 2}', "found start 3 and end 2"),
        ('{"file": "a.mp4", "start": "soon"}', "found start 'soon', expected seconds"),
        ('{"file": "a.mp4", "end": -2}', "found end -2, expected seconds"),
        ('{"file": "a.mp4", "video": "b.webm"}', "found 2 files ('a.mp4', 'b.webm'), expected one in a row"),
        ('{"file": "a.mp4", "caption": 5}', "found an int as caption, expected text"),
        ('{"file": "a.mp4", "titel": "x"}', "unknown column 'titel'"),
    ],
)
def test_a_bad_row_of_jsonl_is_told_with_its_line(folder: pathlib.Path, row: str, reason: str) -> None:
    good = '{"file": "b.webm", "caption": "good"}'
    first, bad, last = read(folder / "table.jsonl", "\n".join([good, row, good]))
    assert first == last
    assert bad.key == "table.jsonl, line 2"
    assert reason in bad.reason
    if "unknown column" not in reason:
        # Which is no worse in the first row.
        bad, _ = read(folder / "table.jsonl", "\n".join([row, good]))
        assert bad.key == "table.jsonl, line 1"


def test_a_table_with_unknown_columns_is_refused_unless_they_are_ignored(folder: pathlib.Path) -> None:
    text = "file,caption,licence\na.mp4,a dog,mine\n"
    with pytest.raises(UserError, match=r"table.csv: found unknown column 'licence', .* --ignore_columns licence"):
        read(folder / "table.csv", text)
    assert in_short(read(folder / "table.csv", text, ignored_columns=("licence",))) == [("a.mp4", ("a dog",))]
    with pytest.raises(UserError, match=r"found unknown columns 'my id', 'x', .* --ignore_columns 'my id' x$"):
        read(folder / "table.csv", "file,my id,x\na.mp4,3,4\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found an empty table"),
        ("caption\na dog\n", "found column 'caption', expected one of file, video, image, which names the files"),
        (
            "a.mp4,a dog\nb.webm,a cat\n",
            r"csv: found 'a.mp4', 'a dog' in the first line, expected the names of columns",
        ),
        (",".join(f"{n}{'x' * 99}" for n in range(9)), r"found '0x{18}\.\.\.x{19}', .* and 3 more in the first line"),
        (
            b"PK\3\4\x14\0\6\0\x1b[31mxl/workbook.xml",
            r"csv: found a file that is no text \(byte 5 is zero\), expected a table",
        ),
    ],
)
def test_a_table_of_no_files_is_refused_in_one_short_line(
    folder: pathlib.Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        read(folder / "table.csv", text)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600


def test_a_row_that_is_not_in_utf8_is_read_with_a_note(folder: pathlib.Path) -> None:
    first, second = read(folder / "table.csv", b"file,caption\n" + "a.mp4,ein Fuß\n".encode("cp1252") + b"b.webm,x\n")
    assert first.captions == ("ein Fuß",)
    assert "not in UTF-8" in first.notes[0]
    assert second.notes == ()


@pytest.mark.slow
def test_one_bad_row_in_a_million_is_found_and_the_table_is_never_in_memory(folder: pathlib.Path) -> None:
    rows = 1_000_000
    with (folder / "table.csv").open("w") as file:
        file.write("file,caption\n")
        for index in range(rows):
            file.write('"a.mp4,broken\n' if index == 765_432 else f"a.mp4,caption {index}\n")
    bad = good = 0
    for each in read_manifest(folder / "table.csv", PrepareSettings()):
        good += isinstance(each, Source)
        if isinstance(each, Problem):
            bad += 1
            assert each.key == "table.csv, line 765434"
    assert (bad, good) == (1, rows - 1)
