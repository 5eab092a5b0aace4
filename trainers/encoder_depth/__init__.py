"""Which encoder blocks to leave out, and how what remains is healed."""
