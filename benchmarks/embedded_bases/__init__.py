"""How the base models of the embedded default were trained."""
