"""IEMOCAP, MELD, MOSI, MOSEI and SIMS: utterances with words, windows and sentiments."""

from pathlib import Path

import pytest

from tests.corpus_trees import Tree, media, read, table

EVALUATION = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes05F_script03_1_F033\tang\t[1.5000, 4.0000, 4.5000]
C-E1:\tAnger;\t()
A-E3:\tval 2; act 4; dom  4;\t()
[8.3000 - 9.1000]\tSes05F_script03_1_M034\texc\t[4.0000, 3.5000, 3.0000]
[9.2000 - 9.9000]\tSes05F_script03_1_M035\txxx\t[2.5000, 2.5000, 2.5000]
[10.0 - 11.0]\tSes05F_script03_1_F036\tqqq\t[2.5000, 2.5000, 2.5000]
"""

TRANSCRIPT = """Ses05F_script03_1_F033 [006.2901-008.2357]: You lied to me.
Ses05F_script03_1_M034: I never did.
M: Hm.
Ses05F_script03_1_M035 [009.2000-009.9000]: Never.
Ses05F_script03_1_F040 [012.0000-013.0000]: Nobody judged this.
"""

DIALOG = "Session5/dialog"

IEMOCAP = {
    **media(
        f"{DIALOG}/avi/DivX/Ses05F_script03_1.avi",
        f"{DIALOG}/avi/DivX/._Ses05F_script03_1.avi",
        "Session5/sentences/wav/Ses05F_script03_1/Ses05F_script03_1_F033.wav",
        "Session1/sentences/wav/Ses01M_impro01/Ses01M_impro01_F001.wav",
    ),
    f"{DIALOG}/EmoEvaluation/Ses05F_script03_1.txt": EVALUATION.encode(),
    f"{DIALOG}/EmoEvaluation/Categorical/Ses05F_script03_1_e1_cat.txt": b"[nothing to read]",
    f"{DIALOG}/transcriptions/Ses05F_script03_1.txt": TRANSCRIPT.encode(),
    "Session1/dialog/EmoEvaluation/Ses01M_impro01.txt": (
        b"[1.0000 - 2.5000]\tSes01M_impro01_F001\thap\t[4.0000, 3.0000, 2.0000]\n"
        b"[3.0000 - 4.5000]\tSes01M_impro01_M002\tneu\t[3.0000, 3.0000, 3.0000]\n"
    ),
}


def test_iemocap_cuts_by_time_and_crops_to_the_half_of_the_speaker(tmp_path: Path) -> None:
    found = read("IEMOCAP", tmp_path, IEMOCAP)
    woman, man = found.rows["Ses05F_script03_1_F033"], found.rows["Ses05F_script03_1_M034"]
    assert (woman.start_s, woman.end_s) == (6.2901, 8.2357)
    assert woman.crop == (0.0, 0.0, 0.5, 1.0)
    assert man.crop == (0.5, 0.0, 1.0, 1.0)
    assert (woman.speaker, man.speaker) == ("Ses05F", "Ses05M")
    assert found.video(woman.clip_id) == f"{DIALOG}/avi/DivX/Ses05F_script03_1.avi"
    assert (woman.source_id, woman.split) == ("Ses05F_script03_1", "Session5")


def test_iemocap_labels_valence_and_the_usual_groups(tmp_path: Path) -> None:
    found = read("iemocap", tmp_path, IEMOCAP)
    man = found.rows["Ses05F_script03_1_M034"]
    assert (man.label_onehot, man.valence) == ("excited", 4.0)
    assert (man.extra["four_way"], man.extra["six_way"]) == ("happy", "excited")
    assert (man.extra["activation"], man.extra["dominance"]) == ("3.5000", "3.0000")
    torn = found.rows["Ses05F_script03_1_M035"]
    assert (torn.label_onehot, torn.extra["code"], torn.extra["four_way"]) == (None, "xxx", None)


def test_iemocap_transcript_lines_without_times_are_listed_not_used(tmp_path: Path) -> None:
    found = read("iemocap", tmp_path, IEMOCAP)
    assert found.rows["Ses05F_script03_1_F033"].subtitle_en == "You lied to me."
    assert found.rows["Ses05F_script03_1_M034"].subtitle_en is None
    path = f"{DIALOG}/transcriptions/Ses05F_script03_1.txt"
    assert f"{path}: Ses05F_script03_1_M034: I never did." in found.left("unreadable")
    assert f"{path}: M: Hm." in found.left("unreadable")


def test_iemocap_without_video_takes_the_sound_of_the_utterance_whole(tmp_path: Path) -> None:
    found = read("iemocap", tmp_path, IEMOCAP)
    row = found.rows["Ses01M_impro01_F001"]
    assert found.audio(row.clip_id) == (
        "Session1/sentences/wav/Ses01M_impro01/Ses01M_impro01_F001.wav"
    )
    assert (row.video_uri, row.start_s, row.end_s, row.crop) == (None, None, None, None)


def test_iemocap_takes_the_sound_of_the_dialogue_on_the_same_clock(tmp_path: Path) -> None:
    tree = {**IEMOCAP, **media(f"{DIALOG}/wav/Ses05F_script03_1.wav")}
    found = read("iemocap", tmp_path, tree)
    assert found.audio("Ses05F_script03_1_F033") == f"{DIALOG}/wav/Ses05F_script03_1.wav"
    assert found.rows["Ses05F_script03_1_F033"].start_s == 6.2901


def test_iemocap_lists_what_has_no_place(tmp_path: Path) -> None:
    found = read("iemocap", tmp_path, IEMOCAP)
    assert len(found.rows) == 4
    assert found.left("no_label") == ["Ses05F_script03_1_F040"]
    assert found.left("no_media") == ["Ses01M_impro01_M002"]
    assert found.left("hidden") == [f"{DIALOG}/avi/DivX/._Ses05F_script03_1.avi"]
    assert found.left("alternative") == [
        "Session5/sentences/wav/Ses05F_script03_1/Ses05F_script03_1_F033.wav"
    ]
    judgements = [line for line in found.left("unreadable") if "EmoEvaluation" in line]
    assert len(judgements) == 1
    assert "Ses05F_script03_1_F036\tqqq" in judgements[0]
    assert found.left("unmatched") == []


MELD_COLUMNS = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,"
    "StartTime,EndTime\n"
)


def meld(*lines: str) -> bytes:
    times = '"00:14:38,127","00:14:40,378"'
    return (MELD_COLUMNS + "".join(f"{line},8,21,{times}\n" for line in lines)).encode()


MELD = {
    **media(
        "MELD.Raw/train_splits/dia0_utt0.mp4",
        "MELD.Raw/train_splits/dia125_utt3.mp4",
        "MELD.Raw/dev_splits_complete/dia0_utt0.mp4",
        "MELD.Raw/dev_splits_complete/dia66_utt9.mp4",
        "MELD.Raw/output_repeated_splits_test/dia0_utt0.mp4",
        "MELD.Raw/output_repeated_splits_test/dia38_utt4.mp4",
        "MELD.Raw/output_repeated_splits_test/dia279_utt15.mp4",
        "MELD.Raw/output_repeated_splits_test/final_videos_testdia0_utt0.mp4",
        "MELD.Raw/output_repeated_splits_test/._dia0_utt0.mp4",
    ),
    "MELD.Raw/train_sent_emo.csv": meld(
        '1,"Oh, hi",Joey,joy,positive,0,0', "2,No,Ross,anger,negative,125,3"
    ),
    "MELD.Raw/dev_sent_emo.csv": meld(
        "1,Hm,Rachel,neutral,neutral,0,0", "2,Me,Monica,fear,negative,110,7"
    ),
    "MELD.Raw/test_sent_emo.csv": meld(
        "1,What?,Mark,surprise,positive,0,0",
        "2,Yes,Mark,happy,positive,38,4",
        "3,So,Mark,sadness,negative,279,15",
    ),
}


def test_meld_numbers_are_told_apart_by_their_split(tmp_path: Path) -> None:
    found = read("MELD", tmp_path, MELD)
    assert {row.clip_id: (row.split, row.label_onehot) for row in found.found.rows} == {
        "train_dia0_utt0": ("train", "joy"),
        "dev_dia0_utt0": ("dev", "neutral"),
        "test_dia0_utt0": ("test", "surprise"),
        "test_dia38_utt4": ("test", None),
    }
    assert found.video("test_dia0_utt0") == "MELD.Raw/output_repeated_splits_test/dia0_utt0.mp4"
    assert found.rows["dev_dia0_utt0"].source_id == "dev_dia0"


def test_meld_broken_absent_and_miscut_clips(tmp_path: Path) -> None:
    found = read("meld", tmp_path, MELD)
    assert found.left("broken") == [
        "MELD.Raw/output_repeated_splits_test/dia279_utt15.mp4",
        "MELD.Raw/train_splits/dia125_utt3.mp4",
    ]
    assert found.left("no_media") == ["dev_dia110_utt7"]
    (absent,) = [left for left in found.found.left_out if left.reason == "no_media"]
    assert absent.detail == "the release has no such file"
    assert "cut wrongly" in (found.rows["test_dia38_utt4"].extra["defect"] or "")
    assert found.rows["test_dia0_utt0"].extra["defect"] is None


def test_meld_lists_files_without_labels_and_unknown_words(tmp_path: Path) -> None:
    found = read("meld", tmp_path, MELD)
    assert found.left("unmatched") == [
        "MELD.Raw/dev_splits_complete/dia66_utt9.mp4",
        "MELD.Raw/output_repeated_splits_test/final_videos_testdia0_utt0.mp4",
    ]
    assert found.left("hidden") == ["MELD.Raw/output_repeated_splits_test/._dia0_utt0.mp4"]
    assert found.left("unreadable") == ["test_dia38_utt4: happy"]


@pytest.mark.parametrize("quote", [b"\x92", "\u0092".encode(), "’".encode()])
def test_meld_quotes_in_cp1252_as_bytes_as_control_characters_and_in_utf8(
    tmp_path: Path, quote: bytes
) -> None:
    text = meld("1,I'm off,Joey,joy,positive,0,0").replace(b"'", quote)
    tree = {**media("train/dia0_utt0.mp4"), "train_sent_emo.csv": text}
    row = read("meld", tmp_path, tree).rows["train_dia0_utt0"]
    assert row.subtitle_en == "I’m off"
    assert (row.speaker, row.extra["sentiment"], row.extra["season"]) == ("Joey", "positive", "8")


LABELS = ["video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "mode"]

MOSI = {
    **media(
        "Raw/Video/Segmented/_dI--eQ6qVU_1.mp4",
        "Raw/Video/Segmented/_dI--eQ6qVU_2.mp4",
        "Raw/Audio/WAV_16000/Segmented/_dI--eQ6qVU_1.wav",
        "Raw/Video/Full/_dI--eQ6qVU.mp4",
    ),
    "Raw/Transcript/Segmented/_dI--eQ6qVU.annotprocessed": (
        b"1_DELIM_IT WAS SO_SO GOOD\nno mark\n2_DELIM_REALLY\n"
    ),
    "label.csv": table(
        LABELS,
        ["_dI--eQ6qVU", "1", "", "2.4", "", "", "", "train"],
        ["_dI--eQ6qVU", "3", "so", "good", "", "", "", "train"],
        ["_dI--eQ6qVU", "7", "gone", "-1.0", "", "", "", "test"],
        ["_dI--eQ6qVU", "x", "?", "0", "", "", "", "test"],
    ),
}


def test_mosi_splits_names_at_the_last_underscore(tmp_path: Path) -> None:
    found = read("CMU-MOSI", tmp_path, MOSI)
    row = found.rows["_dI--eQ6qVU_1"]
    assert (row.source_id, row.valence, row.split) == ("_dI--eQ6qVU", 2.4, "train")
    assert row.subtitle_en == "IT WAS SO_SO GOOD"
    assert found.video("_dI--eQ6qVU_1") == "Raw/Video/Segmented/_dI--eQ6qVU_1.mp4"
    assert found.audio("_dI--eQ6qVU_1") == ("Raw/Audio/WAV_16000/Segmented/_dI--eQ6qVU_1.wav")


def test_mosi_lists_what_has_no_place(tmp_path: Path) -> None:
    assert read("mosi", tmp_path, MOSI).all_left() == {
        "unreadable": [
            "_dI--eQ6qVU_3: good",
            "label.csv: _dI--eQ6qVU x",
            "Raw/Transcript/Segmented/_dI--eQ6qVU.annotprocessed: no mark",
        ],
        "no_media": ["_dI--eQ6qVU_3", "_dI--eQ6qVU_7"],
        "unmatched": [
            "Raw/Video/Full/_dI--eQ6qVU.mp4",
            "Raw/Video/Segmented/_dI--eQ6qVU_2.mp4",
        ],
    }


def test_mosi_without_a_table_has_rows_without_valence_and_says_so(tmp_path: Path) -> None:
    tree = {path: data for path, data in MOSI.items() if path != "label.csv"}
    found = read("mosi", tmp_path, tree)
    assert [row.valence for row in found.found.rows] == [None, None]
    assert found.left("no_label") == ["label.csv"]


def test_mosi_in_the_form_of_mmsa(tmp_path: Path) -> None:
    tree = {
        **media("Raw/_dI--eQ6qVU/1.mp4"),
        "label.csv": table(LABELS, ["_dI--eQ6qVU", "0001", "Good", "1", "0.5", "", "", "valid"]),
    }
    row = read("mosi", tmp_path, tree).rows["_dI--eQ6qVU_1"]
    assert (row.subtitle_en, row.split, row.extra["label_T"]) == ("Good", "valid", "0.5")


MOSEI = {
    **media(
        "Raw/Videos/Full/Combined/-3g5yACwYnA.mp4",
        "Raw/Audio/Full/WAV_16000/-3g5yACwYnA.wav",
        "Raw/Videos/Full/Combined/other.mp4",
    ),
    "Raw/Transcript/Segmented/Combined/-3g5yACwYnA.txt": (
        b"-3g5yACwYnA___2___4.84___13.70___Key is ___ part\n"
        b"-3g5yACwYnA___3___13.1___13.0___backwards\n"
        b"-3g5yACwYnA___4___14.0___15.0___no label\n"
        b"-3g5yACwYnA___five\n"
    ),
    "label.csv": table(
        ["video_id", "clip_id", "text", "label", "mode", "happiness", "sadness"],
        ["-3g5yACwYnA", "2", "", "1.0", "train", "0.667", "0"],
        ["-3g5yACwYnA", "3", "", "1.0", "train", "", ""],
        ["-3g5yACwYnA", "9", "", "-2", "test", "", ""],
    ),
}


def test_mosei_cuts_by_the_times_of_the_transcript_split_at_most_four_times(tmp_path: Path) -> None:
    found = read("CMU-MOSEI", tmp_path, MOSEI)
    row = found.rows["-3g5yACwYnA_2"]
    assert (row.start_s, row.end_s, row.subtitle_en) == (4.84, 13.7, "Key is ___ part")
    assert found.video(row.clip_id) == "Raw/Videos/Full/Combined/-3g5yACwYnA.mp4"
    assert found.audio(row.clip_id) == "Raw/Audio/Full/WAV_16000/-3g5yACwYnA.wav"
    assert (row.valence, row.label_scores) == (1.0, {"happiness": 0.667, "sadness": 0.0})


def test_mosei_lists_bad_windows_and_lines_and_what_has_no_label(tmp_path: Path) -> None:
    path = "Raw/Transcript/Segmented/Combined/-3g5yACwYnA.txt"
    assert read("mosei", tmp_path, MOSEI).all_left() == {
        "unreadable": [f"{path}: -3g5yACwYnA___five", "-3g5yACwYnA_3"],
        "no_label": ["-3g5yACwYnA_4"],
        "no_media": ["-3g5yACwYnA_9"],
        "unmatched": ["Raw/Videos/Full/Combined/other.mp4"],
    }


def test_mosei_cut_clips_are_whole_files(tmp_path: Path) -> None:
    tree = {
        **media("Raw/-3g5yACwYnA/2.mp4"),
        "label.csv": table(LABELS, ["-3g5yACwYnA", "2", "Key", "1", "", "", "", "train"]),
    }
    row = read("mosei", tmp_path, tree).rows["-3g5yACwYnA_2"]
    assert (row.start_s, row.end_s, row.subtitle_en) == (None, None, "Key")


SIMS_LABELS = ["video_id", "clip_id", "label"]


def sims(*, encoding: str = "utf-8") -> Tree:
    lines = [["video_0001", "1", "-0.8"], ["video_0001", "12", "0.6"], ["video_0002", "1", "0.0"]]
    return {
        **media("Raw/video_0001/0001.mp4", "Raw/video_0001/0012.mp4", "Raw/video_0009/0001.mp4"),
        **{f"metadata/sentiment/label_{sense}.csv": table(SIMS_LABELS, *lines) for sense in "MTA"},
        "metadata/sentiment/label_V.csv": table(SIMS_LABELS, ["video_0001", "12", "0.2"]),
        "metadata/train_index.csv": table(["index"], ["1"]),
        "metadata/val_index.csv": table(["index"], ["0"]),
        "metadata/test_index.csv": table(["index"], ["2"], ["99"]),
        "metadata/Translation.csv": (
            "video_id,clip_id,Chinese,English\nvideo_0001,1,我不想,I do not want to\n"
        ).encode(encoding),
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_sims_pads_numbers_and_reads_splits_by_row_number(tmp_path: Path, encoding: str) -> None:
    found = read("CH-SIMS", tmp_path, sims(encoding=encoding))
    assert [(row.clip_id, row.split, row.valence) for row in found.found.rows] == [
        ("video_0001_0001", "val", -0.8),
        ("video_0001_0012", "train", 0.6),
    ]
    first, second = found.found.rows
    assert found.video(first.clip_id) == "Raw/video_0001/0001.mp4"
    assert (first.subtitle_zh, first.subtitle_en) == ("我不想", "I do not want to")
    assert (second.extra["label_V"], first.extra["label_V"]) == ("0.2", None)


def test_sims_lists_what_has_no_place(tmp_path: Path) -> None:
    assert read("ch-sims", tmp_path, sims()).all_left() == {
        "unreadable": ["metadata/test_index.csv: 99"],
        "no_media": ["video_0002_1"],
        "unmatched": ["Raw/video_0009/0001.mp4"],
    }


def test_sims_in_the_form_of_mmsa(tmp_path: Path) -> None:
    tree = {
        **media("Raw/video_0001/0001.mp4"),
        "label.csv": table(LABELS, ["video_0001", "1", "我不想", "-0.8", "0", "", "", "valid"]),
    }
    row = read("sims", tmp_path, tree).rows["video_0001_0001"]
    assert (row.subtitle_zh, row.subtitle_en, row.split) == ("我不想", None, "valid")


def test_sims_v2_parts_are_kept_apart_and_the_unsupervised_part_has_no_labels(
    tmp_path: Path,
) -> None:
    tree = {
        **media(
            "CH-SIMS v2(s)/Raw/aqgy3_0001/00000.mp4",
            "CH-SIMS v2(s)/Raw/aqgy3_0001/00009.mp4",
            "CH-SIMS v2(u)/Raw/aqgy1_0001/00000.mp4",
            "CH-SIMS v2(u)/Raw/aqgy3_0001/00009.mp4",
        ),
        "CH-SIMS v2(s)/meta.csv": table(
            LABELS,
            ["aqgy3_0001", "0", "好", "0.4", "0.2", "", "", "train"],
            ["aqgy3_0001", "5", "好", "0.4", "", "", "", "test"],
        ),
        "CH-SIMS v2(u)/meta.csv": table(
            LABELS, ["aqgy1_0001", "00000", "啊", "", "", "", "", "train"]
        ),
    }
    found = read("CH-SIMS v2", tmp_path, tree)
    assert [(row.clip_id, row.split, row.valence) for row in found.found.rows] == [
        ("aqgy3_0001_00000", "train", 0.4),
        ("aqgy1_0001_00000", "unsupervised", None),
    ]
    assert found.rows["aqgy3_0001_00000"].subtitle_zh == "好"
    assert found.all_left() == {
        "no_media": ["aqgy3_0001_5"],
        "unmatched": [
            "CH-SIMS v2(s)/Raw/aqgy3_0001/00009.mp4",
            "CH-SIMS v2(u)/Raw/aqgy3_0001/00009.mp4",
        ],
    }
