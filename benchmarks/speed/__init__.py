"""How fast a model transcribes by each engine, against what else a user could take. See `__main__.py`."""
