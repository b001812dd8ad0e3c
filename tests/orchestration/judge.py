"""A second code file of the toy workspace, so that a change of code can touch some stages and not others."""


def verdict(margin: float) -> bool:
    return margin < 0.5
