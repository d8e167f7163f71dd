"""Saved results in the forms of other tools; every writer takes `ExportedResults` and a new folder."""
