"""A video, its result and what a user says of it, object by object and frame by frame."""
