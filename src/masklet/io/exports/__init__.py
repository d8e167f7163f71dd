"""Saved results in the forms of other tools, one module a tool; every writer takes `ExportedResults` and a new folder."""
