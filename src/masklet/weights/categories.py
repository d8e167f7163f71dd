"""Categories of data sets by name, in the order of their ids, which is that of the classes of official weights.

Official files name no classes. Whose they are is told by the file's name, by the number of classes, or by the user.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from masklet.core.errors import InputError
from masklet.core.files import path_exists, read_json, read_text


def split_words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


YTVIS19 = split_words(
    """
    person giant_panda lizard parrot skateboard sedan ape dog snake monkey hand rabbit duck cat cow fish train horse
    turtle bear motorbike giraffe leopard fox deer owl surfboard airplane truck zebra tiger elephant snowboard boat
    shark mouse frog eagle earless_seal tennis_racket
    """
)
YTVIS21 = split_words(
    """
    airplane bear bird boat car cat cow deer dog duck earless_seal elephant fish flying_disc fox frog giant_panda
    giraffe horse leopard lizard monkey motorbike mouse parrot person rabbit shark skateboard snake snowboard
    squirrel surfboard tennis_racket tiger train truck turtle whale zebra
    """
)
OVIS = split_words(  # as the data set spells them
    """
    Person Bird Cat Dog Horse Sheep Cow Elephant Bear Zebra Giraffe Poultry Giant_panda Lizard Parrot Monkey Rabbit
    Tiger Fish Turtle Bicycle Motorcycle Airplane Boat Vehical
    """
)
_VIPSEG = split_words(  # things have a star
    """
    wall ceiling door* stair ladder* escalator Playground_slide handrail_or_fence window* rail goal* pillar pole
    floor ground grass sand athletic_field road path crosswalk building house bridge tower windmill well_or_well_lid
    other_construction sky mountain stone wood ice snowfield grandstand sea river lake waterfall water
    billboard_or_Bulletin_Board sculpture* pipeline flag* parasol_or_umbrella* cushion_or_carpet tent* roadblock*
    car* bus* truck* bicycle* motorcycle* wheeled_machine ship_or_boat* raft* airplane* tyre traffic_light lamp
    person* cat* dog* horse* cattle* other_animal* tree flower other_plant toy ball_net backboard skateboard* bat
    ball* cupboard_or_showcase_or_storage_rack box* traveling_case_or_trolley_case* basket* bag_or_package*
    trash_can cage plate* tub_or_bowl_or_pot* bottle_or_cup* barrel* fishbowl* bed* pillow* table_or_desk*
    chair_or_seat* bench* sofa* shelf bathtub gun* commode* roaster* other_machine refrigerator* washing_machine*
    Microwave_oven* fan* curtain textiles clothes painting_or_poster* mirror* flower_pot_or_vase* clock* book tool
    blackboard tissue screen_or_television* computer* printer* Mobile_phone* keyboard* other_electronic_product
    fruit food instrument* train*
    """
)
VIPSEG = tuple(name.rstrip("*") for name in _VIPSEG)
VIPSEG_STUFF = tuple(name for name in _VIPSEG if not name.endswith("*"))
VIPSEG_THINGS = tuple(name.rstrip("*") for name in _VIPSEG if name.endswith("*"))
CATEGORIES: Mapping[str, Sequence[str]] = {
    "ytvis19": YTVIS19,
    "ytvis21": YTVIS21,
    "ovis": OVIS,
    "vipseg": VIPSEG,
    "vipseg-things": VIPSEG_THINGS,
}
TOLD = (  # what a file's name says, the most particular first
    (re.compile(r"vipseg.?things", re.IGNORECASE), "vipseg-things"),
    (re.compile(r"vipseg", re.IGNORECASE), "vipseg"),
    (re.compile(r"(?<![a-z])ovis", re.IGNORECASE), "ovis"),
    (re.compile(r"hq.?ytvis|yt(?:b)?.?vis.?(?:20)?19|youtube.?vis.?(?:20)?19", re.IGNORECASE), "ytvis19"),
    (re.compile(r"yt(?:b)?.?vis.?(?:20)?2[12]|youtube.?vis.?(?:20)?2[12]", re.IGNORECASE), "ytvis21"),
)
BY_COUNT = {len(OVIS): OVIS, len(VIPSEG): VIPSEG, len(VIPSEG_THINGS): VIPSEG_THINGS}  # both of YouTube-VIS have 40


def find_categories(name: str, classes: int) -> Sequence[str] | None:
    """The categories of official weights: by their `name` where it says the data set and that has so many `classes`,
    else by their number; None where neither tells.

    >>> find_categories("minvis_ytvis19_R50.pth", 40)[:2], find_categories("model_final.pth", 25)[:2]
    (('person', 'giant_panda'), ('Person', 'Bird'))
    """
    told = next((CATEGORIES[data] for pattern, data in TOLD if pattern.search(name)), ())
    return told if len(told) == classes else BY_COUNT.get(classes)


def find_stuff(categories: Sequence[str]) -> tuple[str, ...]:
    """Those of a known data set's categories that are stuff; none where they are another's."""
    return VIPSEG_STUFF if tuple(categories) == VIPSEG else ()


def read_category_names(text: str) -> tuple[str, ...]:
    """The categories that a user names: of a data set, or of a file with a name a line, or a json with "categories".

    Raises InputError where there is neither.
    """
    if text in CATEGORIES:
        return tuple(CATEGORIES[text])
    path, known = Path(text).expanduser(), f"{', '.join(CATEGORIES)}, or a file with a name a line or a json"
    if not path_exists(path):
        raise InputError(f"categories {text}: no such data set or file; there are: {known}")
    if path.suffix.lower() != ".json":
        return tuple(line.strip() for line in read_text(path, "a name a line").splitlines() if line.strip())
    content = read_json(path, "a json with categories")
    listed = content.get("categories") if isinstance(content, dict) else None
    names = (
        {c["id"]: str(c["name"]) for c in listed if isinstance(c, dict) and "id" in c and "name" in c}
        if isinstance(listed, list)
        else {}
    )
    if not names:
        raise InputError(f"categories {text}: no 'categories' with 'id' and 'name' in it; give {known}")
    return tuple(names[id] for id in sorted(names))
