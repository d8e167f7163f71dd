"""The papers on their own data: every row of their tables as a recipe that is run by its name."""
