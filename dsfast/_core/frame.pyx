"""Frames on a connection: a header of 20 bytes, then a body. Numbers are big endian.

    offset  bytes
         0      2  magic 0xD5FA
         2      1  version, 1
         3      1  kind of the command
         4      8  request id
        12      4  length of the body
        16      4  CRC32C over the 16 bytes above and the body
        20         the body

Theory of operation. A decoder takes the bytes of one connection in whatever pieces they arrive. A frame that
lies whole in a piece is read where it lies. What a piece leaves incomplete is kept: up to 20 bytes of a header,
then a body, which is allocated once at its full length when the header has been checked and filled by what
follows. So no byte is copied twice, and nobody makes us allocate more than the limit of the moment.

All bytes of a peer are taken through `Piece`, in `take`, which is the one place that compares with what is left.
A stream in which one frame is wrong has no next frame: the decoder stays broken.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    #define CRC32C_POLYNOMIAL 0x82F63B78u  /* Castagnoli, bits reversed */

    static uint32_t crc32c_tables[8][256];

    static void crc32c_prepare(void) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t crc = byte;
            for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? CRC32C_POLYNOMIAL : 0);
            crc32c_tables[0][byte] = crc;
        }
        for (int table = 1; table < 8; table++)
            for (uint32_t byte = 0; byte < 256; byte++) {
                uint32_t crc = crc32c_tables[table - 1][byte];
                crc32c_tables[table][byte] = (crc >> 8) ^ crc32c_tables[0][crc & 255];
            }
    }

    /* Eight bytes a step, one table for each of them. */
    static uint32_t crc32c_portable(uint32_t crc, const uint8_t *at, size_t left) {
        uint32_t (*t)[256] = crc32c_tables;
        for (; left >= 8; left -= 8, at += 8)
            crc = t[7][(crc ^ at[0]) & 255] ^ t[6][(crc >> 8 ^ at[1]) & 255] ^ t[5][(crc >> 16 ^ at[2]) & 255]
                ^ t[4][(crc >> 24 ^ at[3]) & 255] ^ t[3][at[4]] ^ t[2][at[5]] ^ t[1][at[6]] ^ t[0][at[7]];
        for (; left; left--, at++) crc = (crc >> 8) ^ t[0][(crc ^ *at) & 255];
        return crc;
    }

    #if defined(__x86_64__) && defined(__GNUC__)
    #include <immintrin.h>
    static int crc32c_has_hardware(void) { return __builtin_cpu_supports("sse4.2") != 0; }

    __attribute__((target("sse4.2")))
    static uint32_t crc32c_hardware(uint32_t crc, const uint8_t *at, size_t left) {
        uint64_t wide = crc, word;
        for (; left >= 8; left -= 8, at += 8) {
            memcpy(&word, at, 8);
            wide = _mm_crc32_u64(wide, word);
        }
        for (crc = (uint32_t)wide; left; left--, at++) crc = _mm_crc32_u8(crc, *at);
        return crc;
    }
    #else
    static int crc32c_has_hardware(void) { return 0; }
    #define crc32c_hardware crc32c_portable
    #endif

    static uint64_t load64(const uint8_t *at) {
        uint64_t number = 0;
        for (int byte = 0; byte < 8; byte++) number = number << 8 | at[byte];
        return number;
    }

    static uint32_t load32(const uint8_t *at) {
        return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    }

    static void store32(uint8_t *at, uint32_t number) {
        for (int byte = 0; byte < 4; byte++) at[byte] = (uint8_t)(number >> (24 - 8 * byte));
    }

    static void store64(uint8_t *at, uint64_t number) {
        store32(at, (uint32_t)(number >> 32));
        store32(at + 4, (uint32_t)number);
    }
    """
    uint64_t load64(const uint8_t* at) nogil
    uint32_t load32(const uint8_t* at) nogil
    void store32(uint8_t* at, uint32_t number) nogil
    void store64(uint8_t* at, uint64_t number) nogil
    void crc32c_prepare() nogil
    int crc32c_has_hardware() nogil
    uint32_t crc32c_portable(uint32_t crc, const uint8_t* at, size_t left) nogil
    uint32_t crc32c_hardware(uint32_t crc, const uint8_t* at, size_t left) nogil

HEADER_BYTES = 20
BODY_BYTES_MAX = 2**32 - 1  # what the length in a header can say; decoders set their own, lower limit
MAGIC = 0xD5FA
VERSION = 1

cdef enum:
    HEADER = 20
    SUMMED = 16  # the bytes of a header that its checksum covers
    VERSION_BYTE = 1

crc32c_prepare()
HARDWARE_CRC = bool(crc32c_has_hardware())
cdef uint32_t (*checksum)(uint32_t, const uint8_t*, size_t) noexcept nogil
checksum = crc32c_hardware if crc32c_has_hardware() else crc32c_portable


class FrameError(ValueError):
    """The stream holds something that is no frame, so its connection is of no more use.

    `reason` is the sentence, `offset` the byte of the stream at which the wrong frame begins, and `frames` are
    those that the same call of `feed` decoded before it.
    """

    def __init__(self, reason, offset, frames):
        self.reason = reason
        self.offset = offset
        self.frames = frames
        super().__init__(f"{reason} (frame at byte {offset} of the stream)")


def encode(uint8_t kind, uint64_t request_id, body):
    """One frame as bytes; the body is anything with a buffer of bytes.

    Raises OverflowError for a kind over 8 bits or an id over 64, ValueError for a body over BODY_BYTES_MAX.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(body, &view, PyBUF_SIMPLE)
    try:
        if view.len > <Py_ssize_t>0xFFFFFFFF:
            raise ValueError(f"a body of {view.len} bytes does not fit: a frame holds at most {BODY_BYTES_MAX}")
        frame = PyBytes_FromStringAndSize(NULL, HEADER + view.len)
        write(<uint8_t*>PyBytes_AS_STRING(frame), kind, request_id, <const uint8_t*>view.buf, view.len)
        return frame
    finally:
        PyBuffer_Release(&view)


def crc32c(data, *, bint portable=False):
    """The CRC32C of some bytes, as the checksum of frames computes it; `portable` avoids special instructions."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if portable:
            return ~crc32c_portable(0xFFFFFFFFu, <const uint8_t*>view.buf, view.len) & 0xFFFFFFFFu
        return ~checksum(0xFFFFFFFFu, <const uint8_t*>view.buf, view.len) & 0xFFFFFFFFu
    finally:
        PyBuffer_Release(&view)


cdef struct Piece:
    const uint8_t* at
    Py_ssize_t left


@cython.final
@cython.no_gc  # holds bytes only
cdef class FrameDecoder:
    """Turns the bytes of one connection into frames; a body over `body_bytes_max` is refused by its header."""

    cdef public uint32_t body_bytes_max
    cdef uint8_t _header[HEADER]
    cdef Py_ssize_t _header_bytes
    cdef bytes _body  # None, or being filled for the frame of `_header`
    cdef Py_ssize_t _body_bytes
    cdef uint64_t _offset  # of the next frame, or of the one that is being filled
    cdef str _broken  # the reason, or None

    def __init__(self, uint32_t body_bytes_max):
        self.body_bytes_max = body_bytes_max

    @property
    def buffered(self):
        """Bytes held of a frame that is not complete."""
        return self._header_bytes + self._body_bytes

    def feed(self, data):
        """Take the next bytes of the stream; returns the frames they complete as (kind, request id, body).

        Raises FrameError if a frame is wrong, and again from then on; the frames before it are in `frames` of
        the first of these errors.
        """
        cdef Py_buffer view
        cdef Piece piece
        cdef list frames = []
        if self._broken is not None:
            raise FrameError(self._broken, self._offset, frames)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            piece = Piece(<const uint8_t*>view.buf, view.len)
            self._decode(&piece, frames)
        finally:
            PyBuffer_Release(&view)
        return frames

    cdef int _decode(self, Piece* piece, list frames) except -1:
        cdef const uint8_t* header
        cdef bytes body
        while True:
            header = self._next_header(piece, frames)
            if header is NULL:
                return 0
            body = self._next_body(piece, header)
            if body is None:
                return 0
            self._check_sum(header, body, frames)
            frames.append((header[3], load64(header + 4), body))
            self._offset += HEADER + len(body)
            self._header_bytes = 0

    cdef const uint8_t* _next_header(self, Piece* piece, list frames) except? NULL:
        """The header of the frame to complete, in the piece or in `_header`; NULL when the piece ends before it."""
        cdef const uint8_t* header = NULL
        if self._body is not None:
            return self._header  # checked when it arrived
        if self._header_bytes == 0:
            header = take(piece, HEADER)
        if header is NULL:
            self._header_bytes += fill(self._header, self._header_bytes, HEADER, piece)
            if self._header_bytes < HEADER:
                return NULL
            header = self._header
        self._check_header(header, frames)
        return header

    cdef bytes _next_body(self, Piece* piece, const uint8_t* header):
        """The whole body of this header, or None when the piece ends before it."""
        cdef Py_ssize_t length = load32(header + 12)
        cdef const uint8_t* whole
        cdef bytes body = self._body
        if body is None:
            whole = take(piece, length)
            if whole is not NULL:
                return PyBytes_FromStringAndSize(<const char*>whole, length)
            body = self._begin_body(header, length)
        self._body_bytes += fill(<uint8_t*>PyBytes_AS_STRING(body), self._body_bytes, length, piece)
        if self._body_bytes < length:
            return None
        self._body = None
        self._body_bytes = 0
        return body

    cdef bytes _begin_body(self, const uint8_t* header, Py_ssize_t length):
        self._body = PyBytes_FromStringAndSize(NULL, length)
        if header is not <const uint8_t*>self._header:
            memcpy(self._header, header, HEADER)
        self._header_bytes = HEADER
        return self._body

    cdef int _check_header(self, const uint8_t* header, list frames) except -1:
        cdef uint32_t length = load32(header + 12)
        if header[0] != 0xD5 or header[1] != 0xFA:
            return self._fail(f"bad magic 0x{header[0]:02X}{header[1]:02X}: a frame begins with 0x{MAGIC:04X}", frames)
        if header[2] != VERSION_BYTE:
            return self._fail(f"bad version {header[2]}: this end speaks version {VERSION}", frames)
        if length > self.body_bytes_max:
            return self._fail(f"body length {length} is over the limit of {self.body_bytes_max} bytes", frames)
        return 0

    cdef int _check_sum(self, const uint8_t* header, bytes body, list frames) except -1:
        cdef uint32_t found = frame_sum(header, <const uint8_t*>PyBytes_AS_STRING(body), len(body))
        cdef uint32_t stated = load32(header + SUMMED)
        if found != stated:
            return self._fail(f"bad checksum 0x{stated:08X}: the bytes have 0x{found:08X}", frames)
        return 0

    cdef int _fail(self, str reason, list frames) except -1:
        self._broken = reason
        self._body = None
        self._header_bytes = self._body_bytes = 0
        raise FrameError(reason, self._offset, frames)


cdef inline const uint8_t* take(Piece* piece, Py_ssize_t count) noexcept nogil:
    """The next bytes of a piece; NULL, and nothing is taken, if it has fewer."""
    cdef const uint8_t* at = piece.at
    if count < 0 or count > piece.left:
        return NULL
    piece.at += count
    piece.left -= count
    return at


cdef inline Py_ssize_t fill(uint8_t* block, Py_ssize_t filled, Py_ssize_t size, Piece* piece) noexcept nogil:
    """Move bytes of the piece to where a block is not filled yet; returns how many."""
    cdef Py_ssize_t count = min(size - filled, piece.left)
    if count > 0:
        memcpy(block + filled, take(piece, count), count)
    return count


cdef inline void write(uint8_t* at, uint8_t kind, uint64_t request_id, const uint8_t* body, Py_ssize_t length) noexcept:
    at[0] = 0xD5
    at[1] = 0xFA
    at[2] = VERSION_BYTE
    at[3] = kind
    store64(at + 4, request_id)
    store32(at + 12, <uint32_t>length)
    store32(at + SUMMED, frame_sum(at, body, length))
    if length:
        memcpy(at + HEADER, body, length)


cdef inline uint32_t frame_sum(const uint8_t* header, const uint8_t* body, Py_ssize_t length) noexcept:
    return ~checksum(checksum(0xFFFFFFFFu, header, SUMMED), body, length)
