"""The recipes that come with the project, and how a YAML file becomes checked dataclasses."""
