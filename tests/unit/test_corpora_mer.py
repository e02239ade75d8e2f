"""MER2023 to MER2026 and EMER: prefixes of names, tracks, subtitles, and the real EMER tables."""

import csv
from pathlib import Path

import pytest

from emer_ray.metrics import labels
from tests.corpus_trees import media, plant, read, table

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "data"

MER2023 = {
    **media(
        "train/sample_00000001.mp4",
        "train/sample_00000002.avi",
        "test1/sample_00000003_cut.mp4",
        "test3/sample_00000004.mp4",
        "test3/sample_00000005.mp4",
        "extra/notes.mp4",
    ),
    "train-label.csv": table(
        ["name", "discrete", "valence"],
        ["sample_00000001", "happy", "2.5"],
        ["sample_00000002", "jolly", "1"],
        ["sample_00000099", "sad", "-1"],
    ),
    "test1-label.csv": table(["name", "discrete", "valence"], ["sample_00000003", "worried", "-2"]),
    "test3-label.csv": table(["name", "discrete"], ["sample_00000004", "neutral"]),
    "transcription.csv": table(
        ["name", "chinese", "english"], ["sample_00000001", "好的。", "All right."]
    ),
}


def test_mer2023_joins_labels_valence_splits_and_subtitles(tmp_path: Path) -> None:
    found = read("MER2023", tmp_path, MER2023)
    row = found.rows["sample_00000001"]
    assert (row.label_onehot, row.valence, row.split) == ("happy", 2.5, "train")
    assert (row.subtitle_zh, row.subtitle_en) == ("好的。", "All right.")
    assert (row.corpus, row.licence_tag) == ("mer2023", "gated:MER2023")


def test_mer2023_finds_a_clip_by_the_prefix_of_its_name_as_mp4_or_avi(tmp_path: Path) -> None:
    found = read("mer2023", tmp_path, MER2023)
    assert found.video("sample_00000002") == "train/sample_00000002.avi"
    assert found.video("sample_00000003") == "test1/sample_00000003_cut.mp4"


def test_mer2023_test3_has_no_valence_and_clips_without_labels_have_rows(tmp_path: Path) -> None:
    found = read("mer2023", tmp_path, MER2023)
    assert found.rows["sample_00000004"].valence is None
    assert found.rows["sample_00000004"].label_onehot == "neutral"
    assert found.rows["sample_00000005"].label_onehot is None
    assert found.rows["sample_00000005"].split == "test3"


def test_mer2023_lists_what_has_no_place(tmp_path: Path) -> None:
    assert read("mer2023", tmp_path, MER2023).all_left() == {
        "unreadable": ["sample_00000002: jolly"],
        "no_media": ["sample_00000099"],
        "unmatched": ["extra/notes.mp4"],
    }


def test_two_files_of_one_clip_are_one_row_and_a_duplicate(tmp_path: Path) -> None:
    found = read("mer2023", tmp_path, {**MER2023, **media("train/sample_00000001.avi")})
    assert found.video("sample_00000001") == "train/sample_00000001.avi"
    assert found.left("duplicate") == ["train/sample_00000001.mp4"]


def test_mer2024_parts_are_splits_and_the_unlabelled_part_has_rows(tmp_path: Path) -> None:
    tree = {
        **media(
            "video-labeled/samplenew_00000001.mp4",
            "video-unlabeled-with-test2noise/samplenew3_00000002.mp4",
            "video-labeled/other.mp4",
        ),
        "label-disdim.csv": table(
            ["name", "discrete", "valence"], ["samplenew_00000001", "angry", "-3"]
        ),
    }
    found = read("mer2024", tmp_path, tree)
    assert [(row.clip_id, row.split, row.label_onehot) for row in found.found.rows] == [
        ("samplenew3_00000002", "unlabeled", None),
        ("samplenew_00000001", "labeled", "angry"),
    ]
    assert found.all_left() == {"unmatched": ["video-labeled/other.mp4"]}


MER2025 = {
    **media(
        "video/samplenew_00000001.mp4",
        "video/sample_00000002.mp4",
        "video/samplenew_00000003.mp4",
        "video/samplenew_00000004.mp4",
        "audio/samplenew_00000001.wav",
        "audio/samplenew_00000005.wav",
        "openface_face/samplenew_00000001/samplenew_00000001.npy",
    ),
    "subtitle_chieng.csv": table(
        ["name", "chinese", "english"], ["samplenew_00000001", "走吧", "Let's go"]
    ),
    "track1_train_disdim.csv": table(
        ["name", "discrete", "valence"], ["samplenew_00000001", "angry", "-2"]
    ),
    "track2_train_ovmerd.csv": table(
        ["name", "openset"], ["sample_00000002", "['calm', 'self-deprecating']"]
    ),
    "track2_train_mercaptionplus.csv": table(
        ["name", "openset"],
        ["sample_00000002", "['written by a model']"],
        ["samplenew_00000001", "[impatient, angry"],
    ),
    "track3_train_mercaptionplus.csv": table(["name", "reason"], ["samplenew_00000001", "Because"]),
    "track_all_candidates.csv": table(["name"], ["samplenew_00000003"], ["samplenew_00000009"]),
}


def test_mer2025_puts_the_tracks_of_a_clip_into_one_row(tmp_path: Path) -> None:
    found = read("mer2025", tmp_path, MER2025)
    row = found.rows["samplenew_00000001"]
    assert (row.label_onehot, row.valence, row.label_ov) == ("angry", -2.0, ["impatient", "angry"])
    assert row.extra["reason"] == "Because"
    assert row.extra["tracks"] == (
        "track1_train_disdim track2_train_mercaptionplus track3_train_mercaptionplus"
    )
    assert found.audio("samplenew_00000001") == "audio/samplenew_00000001.wav"
    assert row.subtitle_zh == "走吧"


def test_mer2025_labels_by_people_go_before_those_by_models(tmp_path: Path) -> None:
    found = read("mer2025", tmp_path, MER2025)
    assert found.rows["sample_00000002"].label_ov == ["calm", "self-deprecating"]


def test_mer2025_candidates_and_clips_of_no_track_have_rows(tmp_path: Path) -> None:
    found = read("mer2025", tmp_path, MER2025)
    assert {row.clip_id: row.split for row in found.found.rows} == {
        "sample_00000002": "train",
        "samplenew_00000001": "train",
        "samplenew_00000003": "candidate",
        "samplenew_00000004": None,
        "samplenew_00000005": None,
    }
    assert found.video("samplenew_00000005") is None
    assert found.all_left() == {"no_media": ["samplenew_00000009"]}


def test_mer2026_takes_human_labels_and_leaves_pairs_of_descriptions_alone(tmp_path: Path) -> None:
    tree = {
        **media("video/video_track1/samplenew_00000001.mp4", "video/samplenew_00000002.mp4"),
        "track1_train.csv": table(["name", "discrete"], ["samplenew_00000001", "surprise"]),
        "track2_train_human.csv": table(["name", "openset"], ["samplenew_00000001", "['amazed']"]),
        "track2_train_mercaptionplus.csv": table(
            ["name", "openset"], ["samplenew_00000001", "['model']"]
        ),
        "track3_emoprefer.csv": table(
            ["name", "a1", "a2", "preference"], ["samplenew_00000002", "x", "y", "a1"]
        ),
        "track3_candidate.csv": table(["name", "a1", "a2"], ["samplenew_00000077", "x", "y"]),
    }
    found = read("mer2026", tmp_path, tree)
    row = found.rows["samplenew_00000001"]
    assert (row.label_onehot, row.label_ov, row.licence_tag) == (
        "surprise",
        ["amazed"],
        "gated:MER2026",
    )
    assert found.rows["samplenew_00000002"].split is None
    assert found.all_left() == {}


def test_emer_v1_joins_both_languages_and_leaves_other_clips_unmatched(tmp_path: Path) -> None:
    header = ["names", "emotions", "subtitles", "reasons"]
    tree = {
        **media("train/sample_00000648.avi", "train/sample_00000001.mp4"),
        "gt-eng.csv": table(header, ["sample_00000648", "angry", "Go.", "He roared."]),
        "gt-chi.csv": "\n".join(
            [",".join(header), "sample_00000648,生气,走。,他怒吼。", "sample_00000680,高兴,谢,笑"]
        ).encode("gb18030"),
    }
    found = read("EMER v1", tmp_path, tree)
    row = found.rows["sample_00000648"]
    assert (row.label_onehot, row.subtitle_en, row.subtitle_zh) == ("angry", "Go.", "走。")
    assert row.extra == {"reason_en": "He roared.", "reason_zh": "他怒吼。", "emotion_zh": "生气"}
    assert found.all_left() == {
        "no_media": ["sample_00000680"],
        "unmatched": ["train/sample_00000001.mp4"],
    }


def test_ovmerd_plus_reads_ovlabel_and_its_subtitles(tmp_path: Path) -> None:
    tree = {
        **media("video/sample_00000007.mp4"),
        "ovlabel.csv": table(["name", "openset"], ["sample_00000007", "[shy, calm]"]),
        "subtitle.csv": table(["name", "sentence"], ["sample_00000007", "那就不见不散了啊"]),
    }
    row = read("OV-MERD+", tmp_path, tree).rows["sample_00000007"]
    assert (row.label_ov, row.subtitle_zh, row.subtitle_en) == (
        ["shy", "calm"],
        "那就不见不散了啊",
        None,
    )


def _rows_of(name: str) -> list[dict[str, str]]:
    with (REFERENCE / name).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """The released tables beside stand-ins for the clips that they name."""
    if not REFERENCE.is_dir():
        pytest.skip("the released EMER tables are not beside this checkout")
    names = {row["names"] for row in _rows_of("emer_v1_gt-eng.csv")}
    names |= {row["name"] for row in _rows_of("mer2024_check-openset.csv")}
    plant(tmp_path, media(*(f"video/{name}.mp4" for name in names)))
    (tmp_path / "tables").symlink_to(REFERENCE)
    return tmp_path


def test_the_released_tables_of_emer_v1(released: Path) -> None:
    found = read("emer-v1", released, {})
    counts: dict[str | None, int] = {}
    for row in found.found.rows:
        counts[row.label_onehot] = counts.get(row.label_onehot, 0) + 1
        assert (row.subtitle_en is None) == (row.subtitle_zh is None)
        assert row.extra["reason_en"]
        assert row.extra["reason_zh"]
    assert counts == {"angry": 36, "happy": 32, "worried": 17, "sad": 11, "surprise": 4}
    wordless = [row.clip_id for row in found.found.rows if not row.subtitle_en]
    assert len(wordless) == 7  # they laugh, cry or say nothing
    assert len(found.left("unmatched")) == 332 - 39
    assert set(found.all_left()) == {"unmatched"}


def test_the_released_tables_of_emer_v2(released: Path) -> None:
    found = read("emer-v2", released, {})
    assert len(found.rows) == 332
    for cells in _rows_of("mer2024_check-openset.csv"):
        assert found.rows[cells["name"]].label_ov == labels.parse(cells["openset"])
        assert found.rows[cells["name"]].extra["reason_zh"]
    assert set(found.all_left()) == {"unmatched"}
