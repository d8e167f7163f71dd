"""Every sentence of docs/deva.md on what happens and on settings has a test that fails where it is not true.

`TESTS` says which, by the sentence (or by the first cell of a table's row). A sentence that is new or was changed has
none, and fails here until it has one; so does an entry whose sentence is gone, or whose test is.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from masklet.reproduce.recipes import read_recipes
from masklet.systems.deva.online import DevaSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/deva.md").read_text(encoding="utf-8")
PARTS = ("What happens", "Settings")

DEVA, CONSENSUS = "systems/test_deva.py::test_", "systems/test_consensus.py::test_"
MODES, HERE, TEXT = (
    "systems/test_deva_modes.py::test_",
    "systems/test_deva_page.py::test_",
    "models/test_text.py::test_",
)
TESTS = {
    # What happens
    "Frames of a clip (n = `clip`) wait until the last has arrived.": [f"{DEVA}latency_is_the_clip_less_one"],
    "Their proposals are carried to the first frame by a memory of one frame that is then thrown away.": [
        f"{DEVA}proposals_are_carried_to_the_first_frame_of_their_clip",
        f"{DEVA}what_carries_proposals_is_thrown_away",
    ],
    "Two segments of different frames with mask IoU above 0.5 support and exclude each other.": [
        f"{CONSENSUS}exactly_half_is_no_support",
        f"{CONSENSUS}consensus_is_what_brute_force_finds",
    ],
    "The selection of greatest (sum of IoU - 0.5) is found exactly.": [
        f"{CONSENSUS}consensus_is_what_brute_force_finds",
        f"{CONSENSUS}any_graph",
    ],
    "Of equally good ones the earliest frame wins, then the order of the list.": [
        f"{CONSENSUS}a_pair_ties_and_the_earlier_frame_has_it",
        f"{CONSENSUS}of_equally_good_selections_the_order_of_the_list_decides",
    ],
    "Things, stuff and segments of unknown kind never mix.": [
        f"{CONSENSUS}things_and_stuff_neither_support_nor_exclude",
        f"{CONSENSUS}a_track_takes_no_segment_of_another_kind",
    ],
    "A segment that matches a track (mask IoU above 0.5) is united with it; others begin objects (ids 1, 2, 3, ... by "
    "descending area, never reused).": [
        f"{CONSENSUS}a_match_is_above_half",
        f"{CONSENSUS}a_match_is_the_union_and_new_ids_follow_the_area",
        f"{DEVA}deletion_at_the_limit_and_beyond_and_no_id_comes_back",
    ],
    "Things cover stuff; within a kind, small covers large.": [
        f"{CONSENSUS}things_cover_stuff_whatever_their_size",
        f"{CONSENSUS}within_a_kind_small_covers_large",
    ],
    "to the next clip, `every` frames after the last.": [
        f"{DEVA}clips_of_the_released_schedule",
        f"{DEVA}only_frames_of_a_clip_are_segmented_and_every_frame_is_encoded_once",
    ],
    "What a merge changed is written to the memory as a prompt; what it left alone is committed as believed; what lies "
    "wholly under others is committed as absent.": [
        f"{DEVA}what_a_merge_changed_is_prompted_and_the_rest_committed_as_believed",
        f"{DEVA}what_a_merge_covers_wholly_is_committed_as_absent",
    ],
    "`stream` answers at most n - 1 frames late, with the vote so far.": [
        f"{DEVA}latency_is_the_clip_less_one",
        f"{DEVA}final_vote_and_running_vote",
        f"{DEVA}a_vote_counts_every_detection_that_stood_behind",
    ],
    "`run` gives each object its final vote: the most frequent label (the smallest on a tie) and the mean score of its "
    "detections.": [
        f"{DEVA}final_vote_and_running_vote",
        f"{CONSENSUS}the_vote_is_the_most_frequent_label_and_the_smallest_on_a_tie",
        f"{DEVA}the_final_score_is_the_mean_of_all_detections",
    ],
    "A clip that the end of the video cuts short is only propagated; a video shorter than n frames votes on what there "
    "is (the released program has no output).": [
        f"{DEVA}a_clip_that_the_end_cuts_short_is_only_propagated",
        f"{DEVA}the_truth_in_every_schedule",
    ],
    "Votes count every detection that stood behind an object, so a consensus adds one vote a supporting frame.": [
        f"{DEVA}a_vote_counts_every_detection_that_stood_behind",
        f"{DEVA}what_carries_proposals_is_thrown_away",
    ],
    # Settings
    "`clip`": [f"{DEVA}clips_of_the_released_schedule", f"{DEVA}a_false_alarm_of_one_frame_is_outvoted"],
    "`every`": [f"{DEVA}clips_of_the_released_schedule"],
    "`conf`": [f"{DEVA}proposals_are_above_conf_and_duplicates_go"],
    "`nms_iou`": [f"{DEVA}proposals_are_above_conf_and_duplicates_go"],
    "`stuff`": [f"{DEVA}stuff_is_under_things", f"{DEVA}without_stuff_no_kind_is_known"],
    "`single`": [
        f"{DEVA}a_clip_of_one_frame_as_released_says_nothing",
        f"{DEVA}a_false_alarm_of_one_frame_is_outvoted",
    ],
    "`max_missed`": [
        f"{DEVA}deletion_at_the_limit_and_beyond_and_no_id_comes_back",
        f"{TEXT}deva_lets_what_is_named_be_missed_ten_times",
    ],
    "`delete`": [f"{DEVA}deletion_at_the_limit_and_beyond_and_no_id_comes_back"],
    "`max_objects`": [f"{DEVA}at_most_so_many_objects_are_tracked_at_once", f"{DEVA}limit_of_objects"],
    "`overflow`": [f"{CONSENSUS}room_for_the_largest_and_for_known_objects", f"{DEVA}limit_of_objects"],
    "`count`": [f"{CONSENSUS}only_unseen_objects_miss_in_incremental_merging"],
    "`look`": [f"{DEVA}outside_it_looks_only_where_nothing_is_carried"],
    "`empty_born`": [
        f"{DEVA}whether_a_segment_without_a_pixel_begins_an_object",
        f"{CONSENSUS}a_segment_without_pixels",
    ],
    "`prompted`": [f"{DEVA}what_a_merge_changed_is_prompted_and_the_rest_committed_as_believed"],
    "`alignment`": [f"{DEVA}proposals_are_carried_to_the_first_frame_of_their_clip"],
    "`backward`": [f"{DEVA}objects_are_carried_back_from_their_first_mask"],
    "`backward` is ours: who has the file wants the object from where it comes in, not from where a clip first agreed on "
    "it.": [f"{DEVA}objects_are_carried_back_from_their_first_mask"],
    "What is carried back takes no pixel from what was there, and is dropped from a frame in which less than half of it "
    "is left (the same thing under another id).": [
        f"{DEVA}what_is_carried_back_gives_way",
        f"{DEVA}what_is_carried_back_stays_while_half_of_it_is_left",
    ],
    "`--set backward=false` for the paper's numbers.": [f"{HERE}recipes_of_the_paper_have_no_way_back"],
    "A stream never goes back.": [f"{DEVA}a_stream_never_goes_back"],
    '`delete = "beyond"` is the default because the published numbers were made with it, and "an object may be missed '
    '`max_missed` times" is what the name says.': [f"{DEVA}deletion_at_the_limit_and_beyond_and_no_id_comes_back"],
    "The modes are these settings under one word; what else is said with `--set`, `--segmenter` or `--text` goes before "
    "them:": [f"{MODES}each_mode_is_deva_with_other_settings", f"{MODES}what_the_user_says_wins"],
    "`deva`": [f"{MODES}each_mode_is_deva_with_other_settings"],
    "`deva-online`": [f"{MODES}each_mode_is_deva_with_other_settings"],
    "`deva-automatic`": [
        f"{MODES}each_mode_is_deva_with_other_settings",
        f"{MODES}the_automatic_mode_prompts_a_grid_of_64",
    ],
    "`deva-text`": [f"{MODES}each_mode_is_deva_with_other_settings", f"{MODES}the_text_mode_asks_for_words"],
}


def list_statements(part: str) -> list[str]:
    """The sentences under a heading, and of tables the first cells of their rows."""
    text = PAGE.split(f"\n## {part}\n")[1].split("\n## ")[0]
    statements: list[str] = []
    for block in re.split(r"\n\s*\n|\n(?=\d\. )", text):
        lines = block.strip().splitlines()
        if lines and lines[0].startswith("!["):  # a figure
            continue
        if lines and lines[0].startswith("|"):
            statements += [line.split("|")[1].strip() for line in lines[2:]]
            continue
        words = re.sub(r"^\d\. \*\*\w+\.?\*\*( \(eq[^)]*\)\.)?\s*", "", " ".join(lines))
        statements += re.split(r"(?<=[^.]\.) +(?=[A-Z`])", " ".join(words.split()))
    return [statement for statement in statements if statement]


@pytest.mark.parametrize("part", PARTS)
def test_every_statement_has_a_test(part: str) -> None:
    assert [s for s in list_statements(part) if s not in TESTS] == []


def test_no_test_is_of_a_statement_that_is_gone() -> None:
    assert TESTS.keys() - {s for part in PARTS for s in list_statements(part)} == set()


def test_the_tests_are_there() -> None:
    for name in sorted({name for names in TESTS.values() for name in names}):
        file, _, function = name.partition("::")
        assert re.search(rf"^def {function}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), name


def test_the_table_has_every_setting_with_its_default() -> None:
    rows = [line.split("|") for line in PAGE.split("\n## Settings\n")[1].splitlines() if line.startswith("| `")]
    told = {row[1].strip(" `"): row[2].strip(" `") for row in rows if not row[1].strip(" `").startswith("deva")}
    words = {True: "yes", False: "no", (): "none"}
    assert told == {f.name: words.get(f.default, str(f.default)) for f in fields(DevaSettings)}


def test_recipes_of_the_paper_have_no_way_back() -> None:
    of_deva = [recipe for recipe in read_recipes().values() if recipe.system == "deva" and not recipe.reason]
    assert len(of_deva) > 20 and all(recipe.settings["backward"] is False for recipe in of_deva)
