"""`stn train`."""

EXAMPLES = ""


def train() -> None:
    pass
