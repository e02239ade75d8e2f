"""DFEW, FERV39k, MAFW and AFEW: films, pictures of faces, cross-validation, spreadsheets."""

from pathlib import Path

import pytest

from emer_ray.corpora import mafw
from tests.corpus_trees import Tree, media, read, sheet, table

SPLITS = "EmoLabel_DataSplit"

DFEW: Tree = {
    **media(
        "Clip/original/1.mp4",
        "Clip/clip_224x224/00001/00001_00001.jpg",
        "Clip/clip_224x224/00001/00001_00002.jpg",
        "Clip/clip_224x224/00002/00002_00001.jpg",
        "Clip/clip_224x224_16f/00002/1.jpg",
        "Clip/clip_224x224_16f/00003/1.jpg",
        "Clip/original/00004.mp4",
        "Clip/original/77.mp4",
    ),
    "Annotation/annotation.xlsx": sheet(
        [
            "1happy",
            "2sad",
            "3neutral",
            "4angry",
            "5surprise",
            "6disgust",
            "7fear",
            "order",
            "label",
        ],
        [8, 0, 2, 0, 0, 0, 0, 1, 1],
        [0, 7, 3, 0, 0, 0, 0, 2, 2],
        [0, 0, 0, 0, 0, 2, 8, 3, 7],
        [4, 3, 3, 0, 0, 0, 0, 4, 0],
        [4, 3, 3, 0, 0, 0, 0, 5, 9],
    ),
    f"{SPLITS}/train(single-labeled)/set_1.csv": table(["video_name", "label"], [2, 2]),
    f"{SPLITS}/test(single-labeled)/set_1.csv": table(["video_name", "label"], [1, 1]),
    f"{SPLITS}/test(single-labeled)/set_2.csv": table(["video_name", "label"], [2, 2], [1, 1]),
    f"{SPLITS}/test(single-labeled)/set_3.csv": table(["video_name", "label"], [3, 7]),
}


def test_dfew_pads_numbers_and_takes_the_best_form_of_a_clip(tmp_path: Path) -> None:
    found = read("DFEW", tmp_path, DFEW)
    assert {clip: (found.video(clip), found.rows[clip].fps) for clip in found.ids()} == {
        "00001": ("Clip/original/1.mp4", None),
        "00002": ("Clip/clip_224x224/00002", 25.0),
        "00003": ("Clip/clip_224x224_16f/00003", 6.0),
        "00004": ("Clip/original/00004.mp4", None),
    }
    assert found.rows["00002"].extra["fps_assumed"] == "true"
    assert found.left("alternative") == ["Clip/clip_224x224/00001", "Clip/clip_224x224_16f/00002"]


def test_dfew_zero_is_not_single_labelled_and_votes_are_shares(tmp_path: Path) -> None:
    found = read("dfew", tmp_path, DFEW)
    assert [row.label_onehot for row in found.found.rows] == ["happy", "sad", "fear", None]
    assert found.rows["00004"].label_scores == {
        **dict.fromkeys(("angry", "surprise", "disgust", "fear"), 0.0),
        "happy": 0.4,
        "sad": 0.3,
        "neutral": 0.3,
    }
    assert not found.left("unreadable")


def test_dfew_split_is_the_set_that_tests_a_clip(tmp_path: Path) -> None:
    found = read("dfew", tmp_path, DFEW)
    assert [row.split for row in found.found.rows] == ["set_1", "set_2", "set_3", None]
    assert found.left("duplicate") == ["00001 in set_2"]


def test_dfew_lists_what_has_no_place(tmp_path: Path) -> None:
    found = read("dfew", tmp_path, DFEW)
    assert found.left("no_media") == ["00005"]
    assert found.left("unmatched") == ["Clip/original/77.mp4"]


FERV39K: Tree = {
    **media(
        "2_ClipsforFaceCrop/Action/Sad/0010/1.jpg",
        "2_ClipsforFaceCrop/Action/Sad/0010/2.jpg",
        "2_ClipsforFaceCrop/Crime/Angry/0010/1.jpg",
        "1_Clips/Daily/Happy/0011.mp4",
        "2_ClipsforFaceCrop/Daily/Happy/0011/1.jpg",
        "2_ClipsforFaceCrop/War/Fear/0099/1.jpg",
    ),
    "2_ClipsforFaceCrop/War/Fear/0098/1.jpg": b"",
    "4_setups/All_scenes/train_All.csv": b"Action/Sad/0010 Sad\nCrime/Angry/0010 Angry\nx y\n",
    "4_setups/All_scenes/test_All.csv": b"Daily/Happy/0011 Happy\nWar/Fear/0098 Fear\n",
    "4_setups/Other/test_Crime.csv": b"Crime/Angry/0010 Angry\n",
}


def test_ferv39k_clips_are_folders_of_pictures_or_videos(tmp_path: Path) -> None:
    found = read("FERV39k", tmp_path, FERV39K)
    assert {clip: (found.video(clip), found.rows[clip].fps) for clip in found.ids()} == {
        "Daily/Happy/0011": ("1_Clips/Daily/Happy/0011.mp4", None),
        "Action/Sad/0010": ("2_ClipsforFaceCrop/Action/Sad/0010", 25.0),
        "Crime/Angry/0010": ("2_ClipsforFaceCrop/Crime/Angry/0010", 25.0),
    }
    row = found.rows["Action/Sad/0010"]
    assert (row.split, row.label_onehot, row.extra["scene"]) == ("train", "sad", "Action")
    assert row.extra["fps_assumed"] == "true"


def test_ferv39k_lists_what_has_no_place(tmp_path: Path) -> None:
    assert read("ferv39k", tmp_path, FERV39K).all_left() == {
        "alternative": ["2_ClipsforFaceCrop/Daily/Happy/0011"],
        "no_media": ["War/Fear/0098"],
        "unreadable": ["4_setups/All_scenes/train_All.csv: x y"],
        "unmatched": ["2_ClipsforFaceCrop/War/Fear/0099"],
    }


SHARES = [0, 0.7, 0.3, 0, 0, 0, 0, 0, 0, 0, 0]
HEADER = ["clip", *mafw.WORDS]
LISTS = "Train & Test Set"

MAFW: Tree = {
    **media(
        "data/clips/00025.mp4",
        "data/clips/00026.mp4",
        "data/clips/00027.mp4",
        "data/clips/00099.mp4",
    ),
    "Labels/annotation.xlsx": sheet(
        ["clip", "invalid", *mafw.WORDS], ["00025.mp4", 0.93, *SHARES], ["00027.mp4", -1, *SHARES]
    ),
    "Labels/single-set.xlsx": sheet(
        ["The single-label set of MAFW"],
        [*HEADER, "single_label"],
        ["00025.mp4", *SHARES, 2],
        [26, *SHARES, 11],
        ["00028.mp4", *SHARES, 1],
    ),
    "Labels/multi-set.xlsx": sheet(
        ["The multi-label set of MAFW"],
        [*HEADER, "multi_label"],
        ["00025.mp4", *SHARES, "2,3"],
        ["00027.mp4", *SHARES, "2,12"],
    ),
    "Labels/descriptive_text.xlsx": sheet(["00025.mp4", "他皱眉。", "He frowns."]),
    f"{LISTS}/single/no_caption/set_1/test.txt": b"00025.mp4 2\n",
    f"{LISTS}/single/no_caption/set_1/train.txt": b"00026.mp4 11\nnonsense\n",
    f"{LISTS}/single/with_caption/set_1/test.txt": (
        "00025.mp4\t2\t他皱眉。\tHe frowns.\n".encode("gb18030")
    ),
    f"{LISTS}/compound/no_caption/set_4/test.txt": b"00025.mp4 2,3\n",
}


def test_mafw_reads_spreadsheets_below_titles_and_without_headers(tmp_path: Path) -> None:
    found = read("MAFW", tmp_path, MAFW)
    row = found.rows["00025"]
    assert (row.label_onehot, row.label_ov) == ("disgust", ["disgust", "fear"])
    assert row.label_scores == dict(zip(mafw.WORDS, SHARES, strict=True))
    assert row.extra["description_zh"] == "他皱眉。"
    assert row.extra["description_en"] == "He frowns."
    assert row.extra["invalid"] == "0.93"


def test_mafw_numbers_of_clips_as_any_program_writes_them(tmp_path: Path) -> None:
    found = read("mafw", tmp_path, MAFW)
    assert found.rows["00026"].label_onehot == "disappointment"
    assert found.video("00026") == "data/clips/00026.mp4"


def test_mafw_split_is_the_set_that_tests_a_clip_in_both_views(tmp_path: Path) -> None:
    found = read("mafw", tmp_path, MAFW)
    row = found.rows["00025"]
    assert (row.split, row.extra["compound_set"]) == ("set_1", "set_4")
    assert found.rows["00026"].split is None


@pytest.mark.parametrize("view", ["single/with_caption", "single/no_caption"])
def test_mafw_lists_suffice_with_tabs_or_blanks(tmp_path: Path, view: str) -> None:
    path = f"{LISTS}/{view}/set_1/test.txt"
    found = read("mafw", tmp_path, {**media("data/clips/00025.mp4"), path: MAFW[path]})
    assert found.rows["00025"].label_onehot == "disgust"
    assert found.rows["00025"].split == "set_1"
    assert found.all_left() == {}


def test_mafw_lists_what_has_no_place(tmp_path: Path) -> None:
    found = read("mafw", tmp_path, MAFW)
    assert found.all_left() == {
        "unreadable": [f"{LISTS}/single/no_caption/set_1/train.txt: nonsense", "00027: 2,12"],
        "no_media": ["00028"],
        "unmatched": ["data/clips/00099.mp4"],
    }
    assert found.rows["00027"].label_ov is None


def test_afew_labels_are_folders_and_aligned_faces_are_the_same_clips(tmp_path: Path) -> None:
    tree = media(
        "Train_AFEW/Angry/000046280.avi",
        "Train_AFEW/AlignedFaces_LBPTOP_Points/Faces/000046280/001.jpg",
        "Train_AFEW/AlignedFaces_LBPTOP_Points/Faces/000099999/001.jpg",
        "Val_AFEW/Val_AFEW/Happy/000046280.avi",
        "Test_AFEW/000000001.avi",
    )
    found = read("AFEW", tmp_path, tree)
    assert [(row.clip_id, row.split, row.label_onehot) for row in found.found.rows] == [
        ("train_000046280", "train", "angry"),
        ("val_000046280", "val", "happy"),
    ]
    faces = "Train_AFEW/AlignedFaces_LBPTOP_Points/Faces"
    assert found.all_left() == {
        "alternative": [f"{faces}/000046280"],
        "unmatched": ["Test_AFEW/000000001.avi", f"{faces}/000099999"],
    }
