"""Messages that stay readable, whatever a file or a library puts into them."""


def shortened(text: object, limit: int = 500) -> str:
    """`text` on at most `limit` characters, the middle left out of a longer one."""
    text = str(text)
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} ... {text[-(limit // 3) :]}"
