"""The commands of publishing, as `trainers.registry` reads them from the entry point in setup.cfg."""

COMMANDS = {
    "card": ("hub_upload.commands.card", "write a model's card"),
    "push": ("hub_upload.commands.push", "publish a model to the Hub and verify it"),
    "push-study": ("hub_upload.commands.push_study", "publish a study's checkpoints as a collection"),
    "space": ("hub_upload.commands.space", "write, run or publish a demo app"),
}
