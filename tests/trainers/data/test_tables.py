"""Tables as people have them: each is read whole, or refused in one line with file, line and remedy."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import soundfile
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import speak
from trainers.data import tables
from trainers.data.prepare import prepare
from trainers.data.sources import detect_format, load_source
from trainers.data.spec import DataSpec
from trainers.data.tables import read_table
from trainers.errors import UserError

RATE = 16_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", speak(["en", "to"]), RATE)
    return tmp_path


def texts(place: Path, **options: Any) -> list[str]:
    return list(load_source(DataSpec(str(place), **options))["text"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl", "m.csv.gz", "m.jsonl.gz", "metadata.csv"])
def test_encodings_endings_and_kinds(folder: Path, name: str, ending: str, encoding: str) -> None:
    mark = "\t" if ".tsv" in name else ","
    lines = [mark.join(cells) for cells in (("file_name", "text"), ("a.wav", "blåbær"), ("b.wav", "søen\u2028her"))]
    if "jsonl" in name:
        lines = [json.dumps({"audio": f"{n}.wav", "text": t}) for n, t in (("a", "blåbær"), ("b", "søen\u2028her"))]
    data = (ending.join(lines) + ending).encode(encoding)
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert texts(folder if name.startswith("metadata") else folder / name) == ["blåbær", "søen\u2028her"]


def test_a_list_of_objects_parquet_and_a_semicolon(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"audio": "a.wav", "text": "hej"}, {"audio": "b.wav", "text": "du"}]
    (folder / "m.json").write_text(json.dumps(rows, indent=2))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "m.parquet")
    (folder / "m.csv").write_text("audio;text\na.wav;hej\nb.wav;du\n")
    for name in ("m.json", "m.parquet", "m.csv"):
        assert texts(folder / name) == ["hej", "du"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("file_name,text\na.wav,bl\u00e5\n".encode("latin-1"), r"Line 2 of .*not UTF-8 \(byte 0xe5\).*iconv"),
        ("file_name,text\na.wav,x\n".encode("utf-16-le"), r"Line 1 of .*NUL"),
        (b'file_name,text\na.wav,"hej\nb.wav,du\n', r"Line 2 of .*quotation marks"),
        (b'file_name,text\na.wav,"hej\nb.wav,"du"\n', r"Line 2 of .*quotation marks"),
        (b'file_name,text\na.wav,"hej\nb.wav,du"\n', r"Line 2 of .*quotation marks"),
        (b'file_name,text\na.wav,x\nb.wav,"hej" sagde han\n', r"Line 3 of .*quotation marks"),
        (b"file_name,text\n", r"no lines to read. It has a header"),
        (b"", r"no lines to read"),
        (b"file_name,text,text\na.wav,x,y\n", r"Line 1 of .*'text' twice"),
        (b"LJ001-0001|Printing\n", r"no lines to read"),
        (b"LJ001|Printing\nLJ002|Books\n", r"has no audio column.*LJ001, Printing"),
    ],
)  # fmt: skip
def test_what_is_refused_names_file_line_and_remedy(folder: Path, content: bytes, says: str) -> None:
    (folder / "metadata.csv").write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        load_source(DataSpec(str(folder)))
    assert "metadata.csv" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[" * 200_000, "nested too deep"),
        ('{"audio": "a.wav", "text": "\\ud800"}', "half a character"),
        ('{"audio": "a.wav", "text": ["a"]}', "no text but a list"),
        ('{"audio": "a.wav", "text": true}', "no text but a bool"),
        ('{"audio": "a.wav", "text": 2.5}', "no text but a float"),
        ('{"audio": "a.wav"', "not JSON"),
        ("[1]", "must be an object"),
    ],
)
def test_json_that_is_refused(folder: Path, line: str, says: str) -> None:
    (folder / "m.jsonl").write_text('{"audio": "a.wav", "text": "x"}\n' + line + "\n")
    with pytest.raises(UserError, match=f"Line 2 of .*{says}"):
        load_source(DataSpec(str(folder / "m.jsonl")))


def test_no_value_is_no_word(folder: Path) -> None:
    rows = ['"x"', "NaN", '"nan"', '"NaN"', "null", '""', "25"]
    (folder / "m.jsonl").write_text("".join(f'{{"audio": "a.wav", "text": {text}}}\n' for text in rows))
    dataset, report = prepare([DataSpec(str(folder / "m.jsonl"))], "train", quiet=True)
    assert dataset["transcript"] == ["x", "25"] and report.dropped == {"without text": 5}
    scored, report = prepare([DataSpec(str(folder / "m.jsonl"), min_characters=0)], "test", quiet=True)
    assert scored["text"] == ["x", "", "25"]  # what is empty is a reference of silence; what is missing is none
    assert report.dropped == {"without text": 4}


def test_half_a_row_is_counted(folder: Path, tmp_path: Path) -> None:
    (folder / "m.csv").write_text("audio,text,speaker\na.wav,hej,x\nb.wav,du e")
    with pytest.raises(UserError, match=r"Line 3 of .*m.csv has 2 of 3 columns"):
        prepare([DataSpec(str(folder / "m.csv"))], "train", quiet=True)
    dataset, report = prepare([DataSpec(str(folder / "m.csv"))], "train", quiet=True, max_bad_fraction=0.5)
    assert len(dataset) == 1 and report.dropped == {"damaged": 1}


def test_files_that_are_no_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "t.csv").write_text("file_name,text\na.wav,hej\n")
    assert texts(Path("t.csv")) == ["hej"]
    with pytest.raises(UserError, match="no known kind"):
        detect_format(DataSpec("a.wav"))
    with pytest.raises(UserError, match=r"'none.csv' does not exist"):
        load_source(DataSpec("none.csv"))
    (folder / "t.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="cannot be read"):
        load_source(DataSpec("t.jsonl.gz"))


def test_nested_folders_and_unnamed_files(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for speaker in ("s1", "s2"):
        deep = folder / "train" / "deep" / speaker
        deep.mkdir(parents=True)
        (folder / "a.wav").rename(deep / "a.wav") if speaker == "s1" else (folder / "b.wav").rename(deep / "a.wav")
        (deep / "metadata.csv").write_text(f"file_name,text\na.wav,{speaker}\n")
    soundfile.write(folder / "train" / "lost.wav", speak(["en"]), RATE)
    with caplog.at_level(logging.WARNING):
        dataset, _ = prepare([DataSpec(str(folder))], "train", quiet=True)
    assert dataset["text"] == ["s1", "s2"] and dataset["id"] == ["deep/s1/a.wav", "deep/s2/a.wav"]
    assert "1 sound files are named by no row" in caplog.text and "lost.wav" in caplog.text


@pytest.mark.parametrize("at_language", [False, True])
def test_mozillas_layout_is_known(folder: Path, at_language: bool) -> None:
    clips = folder / "cv" / "da" / "clips"
    clips.mkdir(parents=True)
    for number, suffix in enumerate(("mp3", "wav", "flac")):
        soundfile.write(clips / f"c{number}.{suffix}", speak(["en"]), RATE)
    lines = [
        "client_id\tpath\tsentence",
        's\tc0.mp3\tHan sagde: "nej',
        's\tc1.mp3\t"Hvad nu?',
        "s\tc2.flac\thej",
        "s\tc3\tdu",
    ]
    (clips.parent / "dev.tsv").write_text("\n".join(lines) + "\n")
    place = folder / "cv" / "da" if at_language else folder / "cv"
    spec = DataSpec(str(place), split="validation", language=None if at_language else "da", min_duration=0.0)
    dataset, report = prepare([spec], "validation", quiet=True, max_bad_fraction=0.5)
    assert dataset["text"] == ['Han sagde: "nej', '"Hvad nu?', "hej"] and report.dropped == {"damaged": 1}
    if not at_language:
        with pytest.raises(UserError, match="Languages there: da"):
            load_source(DataSpec(str(place), split="validation"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode()),
    name=st.sampled_from(["t.csv", "t.tsv", "t.jsonl"]),
)
def test_any_bytes_are_a_table_or_one_line(tmp_path: Path, data: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"audio,text\n" + data if name == "t.csv" else data)
    try:
        table = read_table(path)
    except UserError as error:
        assert name in str(error) and "\n" not in str(error)
    else:
        assert table.rows and all(row.fault is None or f"Line {row.line}" in row.fault for row in table.rows)
        assert all(set(row.values) <= set(table.columns) for row in table.rows)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, max_size=5))
def test_what_a_csv_writer_writes_is_read(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    import csv

    path = tmp_path / "t.csv"
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("audio", "text"), *rows])
    except UnicodeEncodeError:
        return  # half a character cannot be written
    if "\0" in path.read_text(encoding="utf-8"):
        return
    kept = [row for row in rows if any(cell.strip() for cell in row)]
    try:
        table = read_table(path)
    except UserError as error:
        assert not kept or "quotation marks" in str(error)
    else:
        assert [tuple(row.values.values()) for row in table.rows] == kept


def test_tables_that_unpack_to_the_memory_s_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_SMALL_BYTES", 1 << 20)
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(b"audio,text\n" + b"a.wav,a\n" * 500_000))
    with pytest.raises(UserError, match=r"unpacks to more than \d+ MiB, as no text does"):
        read_table(packed)
    long = tmp_path / "long.parquet"
    Dataset.from_dict({"audio": ["a.wav"] * 30, "text": ["a"] * 30}).to_parquet(long)
    assert len(read_table(long).rows) == 30
    monkeypatch.setattr(tables, "MAX_ROWS", 29)
    with pytest.raises(UserError, match="has 30 rows; a table of more than 29 is not read"):
        read_table(long)


@pytest.mark.parametrize(
    ("channel", "fits"), [(0, True), (-1, True), ("1", True), (10**30, False), ("9" * 40, False), (-2, False)]
)
def test_channels_that_there_are(tmp_path: Path, channel: Any, fits: bool) -> None:
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text(json.dumps({"audio": "a.wav", "text": "a", "channel": channel}) + "\n")
    (row,) = load_source(DataSpec(dataset=str(manifest)))
    assert (row["fault"] is None) == fits and row["channel"] == (int(channel) if fits else -1)


def test_a_small_parquet_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    cells = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 200_000, type=pyarrow.int32()), ["x" * 2000])
    schema = pyarrow.schema([pyarrow.field(name, cells.type) for name in ("audio", "text")])
    table = pyarrow.table([cells, cells], schema=schema)
    parquet.write_table(table, tmp_path / "t.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "t.parquet").stat().st_size < 200_000
    with pytest.raises(UserError, match="unpacks to more than"):
        read_table(tmp_path / "t.parquet")


def test_a_header_of_many_columns_takes_linear_time(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",".join(f"{number:x}" for number in range(150_000)) + "\n" + "," * 149_999 + "x\n")
    assert len(read_table(tmp_path / "t.csv").columns) == 150_000
