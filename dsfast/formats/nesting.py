"""How deep values may be nested: masters and workers walk them recursively."""

NESTING_MAX = 64  # brackets in brackets


def nested_beyond(value: object, depth: int = NESTING_MAX) -> bool:
    """Whether a JSON value has more than this many brackets in brackets."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return depth == 0 or any(nested_beyond(each, depth - 1) for each in value)
