from typing import Final, TypeAlias

# What the buffer protocol offers as plain bytes; collections.abc.Buffer is younger than Python 3.11.
BytesLike: TypeAlias = bytes | bytearray | memoryview

HEADER_BYTES: Final[int]
BODY_BYTES_MAX: Final[int]
MAGIC: Final[int]
VERSION: Final[int]
HARDWARE_CRC: Final[bool]

class FrameError(ValueError):
    reason: str
    offset: int
    frames: list[tuple[int, int, bytes]]
    def __init__(self, reason: str, offset: int, frames: list[tuple[int, int, bytes]]) -> None: ...

def encode(kind: int, request_id: int, body: BytesLike) -> bytes: ...
def crc32c(data: BytesLike, *, portable: bool = False) -> int: ...

class FrameDecoder:
    body_bytes_max: int
    def __init__(self, body_bytes_max: int) -> None: ...
    @property
    def buffered(self) -> int: ...
    def feed(self, data: BytesLike) -> list[tuple[int, int, bytes]]: ...
