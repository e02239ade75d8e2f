"""RAVDESS, CREMA-D, SAVEE and eNTERFACE'05: everything is in the names, and some names lie."""

from pathlib import Path

import pytest

from tests.corpus_trees import Tree, media, read, table

RAVDESS = media(
    "Video_Speech_Actor_12/Actor_12/01-01-05-02-01-01-12.mp4",
    "Video_Speech_Actor_12/Actor_12/02-01-05-02-01-01-12.mp4",
    "Audio_Speech_Actors_01-24/Actor_12/03-01-05-02-01-01-12.wav",
    "audio_speech_actors_01-24/Actor_12/03-01-05-02-01-01-12.wav",
    "Video_Speech_Actor_01/Actor_01/02-01-01-01-02-02-01.mp4",
    "Audio_Song_Actors_01-24/Actor_24/03-02-08-01-02-01-24.wav",
    "Audio_Speech_Actors_01-24/Actor_12/03-01-01-02-01-01-12.wav",
    "Audio_Speech_Actors_01-24/Actor_25/03-01-01-01-01-01-25.wav",
)


def test_ravdess_joins_the_recordings_of_a_take(tmp_path: Path) -> None:
    found = read("RAVDESS", tmp_path, RAVDESS)
    take = "01-05-02-01-01-12"
    assert found.video(take) == "Video_Speech_Actor_12/Actor_12/01-01-05-02-01-01-12.mp4"
    assert found.audio(take) == "Audio_Speech_Actors_01-24/Actor_12/03-01-05-02-01-01-12.wav"
    assert found.left("alternative") == ["Video_Speech_Actor_12/Actor_12/02-01-05-02-01-01-12.mp4"]
    silent = "01-01-01-02-02-01"
    assert found.video(silent) == "Video_Speech_Actor_01/Actor_01/02-01-01-01-02-02-01.mp4"
    assert found.audio(silent) is None


def test_ravdess_reads_the_fields_of_a_name(tmp_path: Path) -> None:
    found = read("ravdess", tmp_path, RAVDESS)
    row = found.rows["01-05-02-01-01-12"]
    assert (row.label_onehot, row.speaker) == ("angry", "Actor_12")
    assert row.subtitle_en == "Kids are talking by the door."
    assert row.extra == {
        "channel": "speech",
        "intensity": "strong",
        "repetition": "01",
        "gender": "female",
    }
    song = found.rows["02-08-01-02-01-24"]
    assert (song.label_onehot, song.extra["channel"]) == ("surprised", "song")
    assert song.subtitle_en == "Dogs are sitting by the door."
    assert song.licence_tag == "CC-BY-NC-SA-4.0"


def test_ravdess_lists_mirrored_sounds_and_names_outside_the_grammar(tmp_path: Path) -> None:
    found = read("ravdess", tmp_path, RAVDESS)
    assert found.left("duplicate") == [
        "audio_speech_actors_01-24/Actor_12/03-01-05-02-01-01-12.wav"
    ]
    assert found.left("unmatched") == [
        "Audio_Speech_Actors_01-24/Actor_12/03-01-01-02-01-01-12.wav",  # neutral, but strong
        "Audio_Speech_Actors_01-24/Actor_25/03-01-01-01-01-01-25.wav",
    ]


ANSWERS = ["", "localid", "queryType", "clipName", "respEmo"]

CREMA_D: Tree = {
    **media(
        "VideoFlash/1001_IEO_ANG_HI.flv",
        "AudioWAV/1001_IEO_ANG_HI.wav",
        "AudioMP3/1001_IEO_ANG_HI.mp3",
        "VideoFlash/1040_ITH_SAD_X.flv",
        "AudioMP3/1091_WSI_NEU_XX.mp3",
        "VideoFlash/1076_MTI_SAD_XX.flv",
        "AudioWAV/1064_IEO_DIS_MD.wav",
        "VideoFlash/1092_IEO_ANG_HI.flv",
        "AudioWAV/1001_IEO_ANG_VH.wav",
    ),
    "finishedResponses.csv": table(
        ANSWERS,
        [1, "r1", 3, "1001_IEO_ANG_HI", "A"],
        [2, "r2", 3, "1001_IEO_ANG_HI", "A"],
        [3, "r3", 3, "1001_IEO_ANG_HI", "D"],
        [4, "r4", 1, "1001_IEO_ANG_HI", "N"],
        [5, "r4", 2, "1001_IEO_ANG_HI", "N"],
        [6, "r4", 3, "1040_ITH_SAD_XX", "S"],
        [7, "r4", 3, "1076_MTI_SAD_XX", "S"],
        [8, "r4", 3, "1002_IEO_ANG_HI", "A"],
        [9, "r4", 3, "1001_IEO_ANG_HI", "Q"],
    ),
}


def test_crema_d_joins_picture_and_sound_and_reads_names(tmp_path: Path) -> None:
    found = read("CREMA-D", tmp_path, CREMA_D)
    row = found.rows["1001_IEO_ANG_HI"]
    assert (row.label_onehot, row.speaker, row.extra["intensity"]) == ("anger", "1001", "high")
    assert row.subtitle_en == "It's eleven o'clock."
    assert found.video(row.clip_id) == "VideoFlash/1001_IEO_ANG_HI.flv"
    assert found.audio(row.clip_id) == "AudioWAV/1001_IEO_ANG_HI.wav"
    assert found.left("alternative") == ["AudioMP3/1001_IEO_ANG_HI.mp3"]
    assert found.audio("1091_WSI_NEU_XX") == "AudioMP3/1091_WSI_NEU_XX.mp3"
    assert found.rows["1091_WSI_NEU_XX"].extra["intensity"] is None
    assert row.licence_tag == "ODbL-1.0"


def test_crema_d_votes_are_of_those_who_saw_and_heard(tmp_path: Path) -> None:
    found = read("crema-d", tmp_path, CREMA_D)
    row = found.rows["1001_IEO_ANG_HI"]
    assert row.label_scores == {
        "anger": pytest.approx(2 / 3),
        "disgust": pytest.approx(1 / 3),
    }
    assert row.extra["votes"] == "3"
    assert found.rows["1091_WSI_NEU_XX"].label_scores is None


def test_crema_d_knows_the_clip_with_one_x(tmp_path: Path) -> None:
    found = read("crema-d", tmp_path, CREMA_D)
    row = found.rows["1040_ITH_SAD_X"]
    assert (row.label_onehot, row.label_scores) == ("sad", {"sad": 1.0})


def test_crema_d_lists_what_is_broken_and_what_has_no_place(tmp_path: Path) -> None:
    found = read("crema-d", tmp_path, CREMA_D)
    assert found.left("broken") == [
        "AudioWAV/1064_IEO_DIS_MD.wav",
        "VideoFlash/1076_MTI_SAD_XX.flv",
    ]
    assert found.left("no_media") == ["1002_IEO_ANG_HI"]
    assert found.left("unreadable") == ["finishedResponses.csv: 1001_IEO_ANG_HI Q"]
    assert found.left("unmatched") == [
        "AudioWAV/1001_IEO_ANG_VH.wav",
        "VideoFlash/1092_IEO_ANG_HI.flv",
    ]


def test_savee_joins_picture_and_sound_and_tells_a_from_sa(tmp_path: Path) -> None:
    tree = media(
        "AudioVisualClip/DC/a01.avi",
        "AudioData/DC/a01.wav",
        "AudioData/KL/sa15.wav",
        "AudioData/JE/su02.wav",
        "AudioData/JK/n30.wav",
        "AudioData/JK/x01.wav",
        "AudioData/Info/a01.wav",
        "ALL/JK_h02.wav",
    )
    found = read("SAVEE", tmp_path, tree)
    assert {row.clip_id: (row.label_onehot, row.speaker) for row in found.found.rows} == {
        "DC_a01": ("anger", "DC"),
        "JE_su02": ("surprise", "JE"),
        "JK_h02": ("happiness", "JK"),
        "JK_n30": ("neutral", "JK"),
        "KL_sa15": ("sadness", "KL"),
    }
    assert found.video("DC_a01") == "AudioVisualClip/DC/a01.avi"
    assert found.audio("DC_a01") == "AudioData/DC/a01.wav"
    assert found.all_left() == {"unmatched": ["AudioData/Info/a01.wav", "AudioData/JK/x01.wav"]}


def enterface(subject: int, *, names: str | None = None, without: tuple[str, ...] = ()) -> Tree:
    """A subject with five sentences of six emotions."""
    emotions = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
    who = names or f"s{subject}"
    paths = [
        f"subject {subject}/{emotion}/sentence {number}/{who}_{emotion[:2]}_{number}.avi"
        for emotion in emotions
        for number in range(1, 6)
        if f"{emotion[:2]}_{number}" not in without
    ]
    return media(*paths)


def test_enterface_takes_folders_for_names_with_slips(tmp_path: Path) -> None:
    tree = {
        **enterface(11, names="s12"),
        **enterface(12),
        **media("subject 16/surprise/sentence 3/s16_su_3avi.avi"),
        **media("subject 3/happiness/sentence 1/s_3_ha_1.avi"),
    }
    found = read("eNTERFACE'05", tmp_path, tree)
    assert len(found.rows) == 62
    assert found.rows["s11_an_1"].speaker == "s11"
    assert found.video("s11_an_1") == "subject 11/anger/sentence 1/s12_an_1.avi"
    assert found.rows["s16_su_3"].label_onehot == "surprise"
    assert found.rows["s3_ha_1"].label_onehot == "happiness"
    assert found.left("duplicate") == []


def test_enterface_subject_6_has_no_sentence_folders(tmp_path: Path) -> None:
    tree = {
        **media("subject 6/anger/s6_an.avi", "subject 6/fear/s6_fe.avi"),
        **media("subject 7/anger/s7_an_4.avi"),
    }
    found = read("enterface", tmp_path, tree)
    row = found.rows["s6_an"]
    assert (row.label_onehot, row.extra["uncut"]) == ("anger", "true")
    assert found.rows["s7_an_4"].extra == {"sentence": "4", "uncut": None}
    assert not [clip for clip in found.left("no_media") if clip.startswith("s6")]


def test_enterface_subject_23_is_incomplete(tmp_path: Path) -> None:
    tree = {**enterface(23, without=("ha_2", "sa_5", "su_1")), **media("other/a.avi")}
    found = read("enterface", tmp_path, tree)
    assert len(found.rows) == 27
    assert found.left("no_media") == ["s23_ha_2", "s23_sa_5", "s23_su_1"]
    assert found.left("unmatched") == ["other/a.avi"]
