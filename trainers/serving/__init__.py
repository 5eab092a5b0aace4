"""Out of the notebook: artefacts that other engines read, and what reads them. Nothing here is imported unless it is asked for."""
