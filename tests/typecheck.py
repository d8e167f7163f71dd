"""The type checker of the tests: beartype, an int being a float as everywhere in Python (PEP 484)."""

from beartype import BeartypeConf
from beartype import beartype as plain

beartype = plain(conf=BeartypeConf(is_pep484_tower=True))
