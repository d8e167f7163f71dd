"""The type checker of the tests: beartype, an int being a float as everywhere in Python (PEP 484)."""

from typing import Any

from beartype import BeartypeConf
from beartype import beartype as check_types
from torch import Tensor

CONF = BeartypeConf(is_pep484_tower=True)


def beartype(checked: Any) -> Any:
    """Modules that load without torch name its `Tensor` for mypy alone; here the name is needed while they run."""
    getattr(checked, "__globals__", {}).setdefault("Tensor", Tensor)
    return check_types(checked, conf=CONF)
