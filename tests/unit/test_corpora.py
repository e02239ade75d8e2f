"""What holds for every corpus: nothing is dropped in silence, nothing opens media; the generic
adapter; the page that describes them all.
"""

import dataclasses
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from emer_ray import corpora, schema, storage
from emer_ray.corpora import Row
from emer_ray.corpora.row import REASONS
from emer_ray.corpora.tree import Tree
from emer_ray.errors import ConfigError, ManifestError
from tests.corpus_trees import media, plant, read, sheet, table
from tests.unit.test_corpora_acted import CREMA_D
from tests.unit.test_corpora_speech import MELD

DOCS = Path(__file__).parents[2] / "docs" / "corpora.md"


def test_a_row_is_a_row_of_the_manifest() -> None:
    assert [field.name for field in dataclasses.fields(Row)] == schema.MANIFEST.names


def test_every_corpus_says_what_its_user_has_to_know() -> None:
    names = [corpus.name for corpus in corpora.CORPORA]
    assert len(set(names)) == len(names) == 20
    for corpus in corpora.CORPORA:
        assert corpus.layout
        assert corpus.quirks
        assert corpus.licence_tag
        assert "never run on a real copy" in corpus.checked


@pytest.mark.parametrize(
    ("given", "name"),
    [("CREMA-D", "crema-d"), ("OV-MERD+", "emer-v2"), ("eNTERFACE'05", "enterface05")],
)
def test_names_are_found_however_they_are_spelled(given: str, name: str) -> None:
    assert corpora.named(given).name == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no corpus 'iemocapp'; take mer2023, .*enterface05"):
        corpora.named("iemocapp")


@pytest.mark.parametrize("corpus", corpora.CORPORA, ids=lambda corpus: corpus.name)
def test_every_corpus_refuses_what_is_not_itself(corpus: corpora.Corpus, tmp_path: Path) -> None:
    plant(tmp_path, media("holiday/beach.mp4"))
    with pytest.raises(ManifestError, match=r"no clip of .*holiday/beach.mp4: .*Expected are"):
        corpora.read(corpus, str(tmp_path))


def test_an_empty_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there are no files"):
        corpora.read(corpora.named("savee"), str(tmp_path / "nowhere"))


def test_what_an_adapter_forgets_is_unmatched(tmp_path: Path) -> None:
    def forgetful(tree: Tree) -> Iterator[Row]:
        yield Row(clip_id="a", video_uri=tree.take("a.mp4"))

    corpus = dataclasses.replace(corpora.named("savee"), rows=forgetful)
    plant(tmp_path, {**media("a.mp4", "b.MP4", "c.wav", "faces/1.jpg"), "notes.txt": b"x"})
    found = corpora.read(corpus, str(tmp_path))
    assert [(left.what, left.reason) for left in found.left_out] == [
        ("b.MP4", "unmatched"),
        ("c.wav", "unmatched"),
        ("faces", "unmatched"),
    ]


def test_second_rows_and_windows_that_are_none_are_left_out(tmp_path: Path) -> None:
    def careless(tree: Tree) -> Iterator[Row]:
        yield Row(clip_id="a", video_uri=tree.take("a.mp4"), start_s=1.0, end_s=2.0)
        yield Row(clip_id="a", video_uri=tree.take("a.mp4"))
        yield Row(clip_id="b", video_uri=tree.take("a.mp4"), start_s=2.0, end_s=2.0)
        yield Row(clip_id="c", video_uri=tree.take("a.mp4"), start_s=-1.0)

    corpus = dataclasses.replace(corpora.named("savee"), rows=careless)
    found = corpora.read(corpus, plant(tmp_path, media("a.mp4")))
    assert [row.clip_id for row in found.rows] == ["a"]
    assert [(left.what, left.reason) for left in found.left_out] == [
        ("a", "duplicate"),
        ("b", "unreadable"),
        ("c", "unreadable"),
    ]


def test_files_without_a_byte_are_broken_and_hidden_ones_no_part(tmp_path: Path) -> None:
    tree = {
        **media("AudioData/DC/a01.wav", "__MACOSX/AudioData/DC/a02.wav", "AudioData/DC/._a01.wav"),
        "AudioData/DC/a03.wav": b"",
    }
    found = read("savee", tmp_path, tree)
    assert found.ids() == ["DC_a01"]
    assert found.all_left() == {
        "hidden": ["AudioData/DC/._a01.wav", "__MACOSX/AudioData/DC/a02.wav"],
        "broken": ["AudioData/DC/a03.wav"],
    }


def test_a_table_without_its_columns_is_refused_by_name(tmp_path: Path) -> None:
    tree = {**media("train/dia0_utt0.mp4"), "train_sent_emo.csv": b"Utterance,Emotion\nHi,joy\n"}
    with pytest.raises(
        ManifestError,
        match=r"train_sent_emo.csv: no column Speaker, Dialogue_ID, Utterance_ID; there are Utter",
    ):
        read("meld", tmp_path, tree)


def test_a_spreadsheet_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    tree = {**media("data/clips/00025.mp4"), "Labels/single-set.xlsx": b"no zip"}
    with pytest.raises(ManifestError, match=r"Labels/single-set.xlsx: cannot be read as xlsx"):
        read("mafw", tmp_path, tree)


def test_a_spreadsheet_without_a_header_is_noted(tmp_path: Path) -> None:
    tree = {
        **media("data/clips/00025.mp4"),
        "Labels/single-set.xlsx": sheet(["only", "a", "title"]),
        "Train & Test Set/single/no_caption/set_1/test.txt": b"00025.mp4 2\n",
    }
    assert read("mafw", tmp_path, tree).left("unreadable") == ["Labels/single-set.xlsx"]


@pytest.mark.s3
@pytest.mark.parametrize(("name", "tree"), [("meld", MELD), ("crema-d", CREMA_D)])
def test_the_same_tree_on_s3_and_on_disk(
    name: str, tree: dict[str, bytes], tmp_path: Path, bucket: str
) -> None:
    here = read(name, tmp_path, tree)
    there = read(name, f"{bucket}/some/prefix", tree)
    assert [here.below(row.video_uri) for row in here.found.rows] == [
        there.below(row.video_uri) for row in there.found.rows
    ]
    bare = [dataclasses.replace(row, video_uri=None, audio_uri=None) for row in here.found.rows]
    assert bare == [
        dataclasses.replace(row, video_uri=None, audio_uri=None) for row in there.found.rows
    ]
    assert here.found.left_out == there.found.left_out
    assert there.found.rows[0].video_uri is None or there.found.rows[0].video_uri.startswith(bucket)


@pytest.mark.s3
def test_s3_is_listed_once_and_only_tables_are_read(
    bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    plant(bucket, MELD)
    with caplog.at_level(logging.DEBUG, logger="botocore.endpoint"):
        corpora.read(corpora.named("meld"), bucket)
    requests = re.findall(r"Making request for OperationModel\(name=(\w+)\)", caplog.text)
    assert sorted(requests) == ["GetObject"] * 3 + ["ListObjectsV2"]


GENERIC = r"""
name = "tv-talk"
licence_tag = "CC-BY-4.0"

[media]
video = 'shows/(?P<clip_id>[^/]+)\.mp4'
audio = 'sound/(?P<clip_id>[^/]+)\.wav'
images = 'frames/(?P<clip_id>[^/]+)'
fps = 12.5

[labels]
file = 'labels/(?P<split>[a-z]+)\.csv'
clip_id = "{show}_{clip:0>3}"
media = "{show}"

[columns]
label_onehot = "emotion"
label_ov = "words"
valence = "sentiment"
start_s = "from"
end_s = "to"
subtitle_en = "text"

[scores]
happiness = "hap"

[words]
1 = "happy"
"""

TALK = {
    **media("shows/s1.mp4", "sound/s1.wav", "frames/s2/1.png", "frames/s2/2.png", "shows/s9.mp4"),
    "labels/train.csv": table(
        ["show", "clip", "emotion", "words", "sentiment", "from", "to", "text", "hap", "guest"],
        ["s1", "1", "1", "['glad', 'shy']", "0.5", "1", "2.5", "Hello", "2", "Ann"],
        ["s1", "2", "sad", "", "high", "3", "4", "", "", ""],
        ["s2", "1", "", "", "", "", "", "", "", ""],
        ["s3", "1", "1", "", "", "", "", "", "", ""],
    ),
}


def described(tmp_path: Path, text: str) -> str:
    (tmp_path / "talk.toml").write_text(text, encoding="utf-8")
    return str(tmp_path / "talk.toml")


def test_a_toml_file_describes_any_other_corpus(tmp_path: Path) -> None:
    found = read(described(tmp_path, GENERIC), tmp_path / "root", TALK)
    assert found.ids() == ["s1_001", "s1_002", "s2_001"]
    row = found.rows["s1_001"]
    assert row == Row(
        clip_id="s1_001",
        video_uri=f"{found.root}/shows/s1.mp4",
        audio_uri=f"{found.root}/sound/s1.wav",
        start_s=1.0,
        end_s=2.5,
        subtitle_en="Hello",
        split="train",
        corpus="tv-talk",
        licence_tag="CC-BY-4.0",
        label_onehot="happy",
        label_ov=["glad", "shy"],
        label_scores={"happiness": 2.0},
        valence=0.5,
        extra={"show": "s1", "clip": "1", "guest": "Ann"},
    )
    assert found.rows["s1_002"].label_onehot == "sad"
    assert (found.video("s2_001"), found.rows["s2_001"].fps) == ("frames/s2", 12.5)
    assert found.all_left() == {
        "unreadable": ["s1_002: high"],
        "no_media": ["s3_001"],
        "unmatched": ["shows/s9.mp4"],
    }


def test_a_corpus_whose_names_say_everything_needs_no_table(tmp_path: Path) -> None:
    text = r"""
name = "faces"
[media]
video = '(?P<split>train|test)/(?P<label_onehot>[a-z]+)/(?P<clip_id>(?P<speaker>\w+)-\d+)\.avi'
"""
    tree = media("train/joy/ann-1.avi", "test/anger/bob-1.avi", "test/anger/other.avi")
    found = read(described(tmp_path, text), tmp_path / "root", tree)
    assert [
        (row.clip_id, row.split, row.label_onehot, row.speaker) for row in found.found.rows
    ] == [
        ("ann-1", "train", "joy", "ann"),
        ("bob-1", "test", "anger", "bob"),
    ]
    assert found.rows["ann-1"].licence_tag is None
    assert found.left("unmatched") == ["test/anger/other.avi"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("name =", "title ="), "no key title"),
        (('name = "tv-talk"', ""), "give name, and one of"),
        (("fps = 12.5", ""), "give media.images and media.fps together"),
        (("file =", "table ="), "no key labels.table"),
        ((r"file = 'labels/(?P<split>[a-z]+)\.csv'", ""), "labels.file is not set"),
        (("valence =", "feeling ="), "no key columns.feeling"),
        (("shows/(?P<clip_id>[^/]+)", "shows/(?P<clip_id>[^/]+"), "video is no regular expression"),
        (("shows/(?P<clip_id>", "shows/(?P<name>"), r"media.video has no group"),
        (("[media]", "[media"), "no TOML"),
        (("fps = 12.5", 'fps = "fast"'), "media.fps = 'fast' is no number"),
        (('valence = "sentiment"', "valence = 3"), "columns.valence = 3 is no text in quotes"),
    ],
)
def test_a_wrong_description_is_refused_by_key(
    tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    assert change[0] in GENERIC
    with pytest.raises(ConfigError, match=says):
        corpora.named(described(tmp_path, GENERIC.replace(*change)))


def test_a_section_that_is_no_table_is_refused(tmp_path: Path) -> None:
    text = 'name = "x"\nwords = "happy"\n[media]\nvideo = "(?P<clip_id>.+)"'
    with pytest.raises(ConfigError, match=r"words is not a table; write \[words\]"):
        corpora.named(described(tmp_path, text))


def test_a_template_that_does_not_fit_its_table_is_refused(tmp_path: Path) -> None:
    text = GENERIC.replace("{show}_{clip:0>3}", "{film}")
    with pytest.raises(ConfigError, match=r"does not fit labels/train.csv .*columns are show"):
        read(described(tmp_path, text), tmp_path / "root", TALK)


def test_a_column_that_is_not_in_the_table_is_refused(tmp_path: Path) -> None:
    text = GENERIC.replace('valence = "sentiment"', 'valence = "mood"')
    with pytest.raises(ManifestError, match=r"labels/train.csv: no column mood"):
        read(described(tmp_path, text), tmp_path / "root", TALK)


def test_the_page_describes_every_corpus_as_it_is() -> None:
    page = DOCS.read_text(encoding="utf-8")
    for corpus in corpora.CORPORA:
        facts = (corpus.labels, corpus.scale, corpus.splits, corpus.licence, corpus.checked)
        for fact in (f"`{corpus.licence_tag}`", *facts, *corpus.layout, *corpus.quirks):
            assert fact in page, f"docs/corpora.md lacks of {corpus.name}: {fact}"
    for reason, meaning in REASONS.items():
        assert f"`{reason}`: {meaning}" in page


def test_media_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read_file = storage.read

    def noted(uri: str) -> bytes:
        opened.append(uri)
        return read_file(uri)

    monkeypatch.setattr(storage, "read", noted)
    read("crema-d", tmp_path, CREMA_D)
    assert opened == [f"{tmp_path}/finishedResponses.csv"]
