"""Memory that was in use for a while and is no more: back to the machine, for both programs."""


def give_back() -> None:
    """What the C library keeps between all that stays; glibc does it only when it is asked.

    It takes milliseconds, so it is for moments that come seldom.
    """
    # Late, so that what this needs finds its place in what is given back.
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
