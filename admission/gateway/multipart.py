"""Finds one field of a multipart body without copying the files in it (RFC 7578).

Knows bytes; the body stays as it came.
"""

import re

_BOUNDARY = re.compile(r'boundary="?([^";,]{1,70})', re.IGNORECASE)  # RFC 2046, section 5.1.1
_NAME = re.compile(rb'content-disposition:[^\r\n]*[;\s]name="?([^";\r\n]*)', re.IGNORECASE)
_HEAD_BYTES_MAX = 4096  # of one part; longer ones are no form's


def field(body: bytes, content_type: str, name: str) -> str | None:
    """The text of the first field called ``name``; None without one, or when it cannot be read."""
    named = _BOUNDARY.search(content_type)
    if named is None:
        return None
    line = b"--" + named[1].encode()
    start = body.find(line)
    while start >= 0:
        start += len(line)
        end = body.find(b"\r\n" + line, start)
        if end < 0:
            return None
        head_end = body.find(b"\r\n\r\n", start, min(end, start + _HEAD_BYTES_MAX))
        found = _NAME.search(body, start, head_end) if head_end > 0 else None
        if found and found[1] == name.encode():
            return body[head_end + 4 : end].decode(errors="replace")
        start = end + 2
    return None
