"""What goes wrong at the door, in the user's words."""


class InputError(Exception):
    """Something the user gave cannot be used. The message says what, where, and what to do about it."""
