"""A stable priority queue: the lowest priority number leaves first, equals leave in the order they arrived.

Theory of operation. A 4-ary heap of C entries (priority, arrival number, slot) and one list of keys. An entry
finds its key through its slot, so the heap moves 24 plain bytes and the list alone owns the keys: reference
counts and garbage collection need no code here. The slots of all positions, used or not, are always a
permutation of 0..capacity-1: a position that becomes free keeps a free slot for the next arrival.

Removal by key needs to find the slot of a key. The dictionary for that is built by the first `remove`,
`change`, `priority` or `in`, kept up to date from then on, and dropped when the queue runs empty; a queue
that is only pushed and popped never pays for one. A removed key leaves the sentinel GONE in its slot. Its
entry stays in the heap until it comes to the top or until half of the entries are like it; the entry at the
top always has a key.

`__hash__` and `__eq__` of a key must not use the queue that holds it. Not safe to use from several threads.
"""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.number cimport PyNumber_Index
from libc.stdint cimport int64_t, uint64_t

from types import GenericAlias

cdef object GONE = object()

cdef enum:
    SWEEP_ENTRIES_MIN = 64  # with fewer, a sweep saves less than it costs
    IDLE_ENTRIES_MAX = 1024  # 40 KB: what an empty queue may keep of a rush, so that small ones need not grow again


cdef struct Entry:
    int64_t priority
    uint64_t arrival
    Py_ssize_t slot


@cython.final
@cython.no_gc_clear  # the list and the dictionary break cycles; a queue never sees itself half cleared
cdef class PriorityQueue:
    """Keys ordered by an integer priority (64 bits, lowest first), then by arrival."""

    cdef Entry* _heap
    cdef int64_t* _priorities  # by slot
    cdef Py_ssize_t _capacity
    cdef Py_ssize_t _size  # entries in the heap, those without a key included
    cdef Py_ssize_t _gone  # entries without a key
    cdef uint64_t _arrivals
    cdef list _keys
    cdef dict _index  # key -> slot, or None while nobody needs it

    def __cinit__(self):
        self._keys = []

    def __dealloc__(self):
        PyMem_Free(self._heap)
        PyMem_Free(self._priorities)

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def push(self, key, priority):
        """Add a key that is not in the queue, behind its equals.

        Raises ValueError if it is there and the queue has its index of keys; without the index a doubled key
        is found when the index is built, so callers promise not to push one.
        """
        cdef int64_t number = PyNumber_Index(priority)  # C would cut a float short in silence
        if self._size == self._capacity:
            self._grow()
        if self._index is not None:
            if key in self._index:
                raise ValueError(f"{key!r} is in the queue")
            self._index[key] = self._free_slot()
        self._add(key, number)

    def pop(self):
        """Take out the first key. Raises IndexError when empty."""
        return self._take()

    def pop_item(self):
        """Take out the first key; returns (key, priority). Raises IndexError when empty."""
        priority = self._heap[0].priority if self._size else None
        return self._take(), priority

    def peek(self):
        """The first (key, priority), which stays. Raises IndexError when empty."""
        if self._size == 0:
            raise IndexError("the queue is empty")
        return self._keys[self._heap[0].slot], self._heap[0].priority

    def remove(self, key):
        """Take out this key; returns whether it was there."""
        slot = self._indexed().pop(key, None)
        if slot is None:
            return False
        self._forget(slot)
        return True

    def change(self, key, priority):
        """Give this key another priority and put it behind its new equals, as if it arrived at this moment.

        Returns whether it was there.
        """
        cdef int64_t number = PyNumber_Index(priority)
        if not self.remove(key):
            return False
        self.push(key, number)
        return True

    def priority(self, key):
        """The priority of this key. Raises KeyError if it is not in the queue."""
        return self._priorities[<Py_ssize_t>self._indexed()[key]]

    def clear(self):
        """Take out everything and give the memory back."""
        keys, index = self._keys, self._index  # kept until the queue is whole: the end of a key may run foreign code
        self._keys = []
        self._index = None
        self._size = self._gone = self._capacity = 0
        PyMem_Free(self._heap)
        PyMem_Free(self._priorities)
        self._heap = NULL
        self._priorities = NULL

    def __len__(self):
        return self._size - self._gone

    def __bool__(self):
        return self._size > 0

    def __contains__(self, key):
        return key in self._indexed()

    def __iter__(self):
        """The keys at this moment, in no particular order."""
        return iter([key for key in self._keys if key is not GONE])

    cdef Py_ssize_t _free_slot(self) noexcept:
        return self._heap[self._size].slot

    cdef int _add(self, key, int64_t priority) except -1:
        if self._size == self._capacity:
            self._grow()
        cdef Entry entry = Entry(priority, self._arrivals, self._free_slot())
        self._keys[entry.slot] = key
        self._priorities[entry.slot] = priority
        self._arrivals += 1
        self._size += 1
        rise(self._heap, self._size - 1, entry)
        return 0

    cdef object _take(self):
        if self._size == 0:
            raise IndexError("the queue is empty")
        key = self._keys[self._heap[0].slot]
        if self._index is not None:
            del self._index[key]
        self._keys[self._heap[0].slot] = GONE
        self._drop_top()
        if self._gone:
            self._uncover()
        if self._size == 0:
            self._rest()
        return key

    cdef void _drop_top(self) noexcept:
        cdef Py_ssize_t slot = self._heap[0].slot
        self._size -= 1
        cdef Entry last = self._heap[self._size]
        self._heap[self._size].slot = slot
        if self._size:
            sink(self._heap, self._size, 0, last)

    cdef int _forget(self, Py_ssize_t slot) except -1:
        key = self._keys[slot]  # kept until the queue is whole again
        self._keys[slot] = GONE
        self._gone += 1
        self._uncover()
        if self._size > SWEEP_ENTRIES_MIN and self._gone * 2 > self._size:
            self._sweep()
        if self._size == 0:
            self._rest()
        return 0

    cdef int _rest(self) except -1:
        """The queue ran empty: let go of what only a full one needs."""
        self._index = None
        if self._capacity > IDLE_ENTRIES_MAX:
            self.clear()
        return 0

    cdef int _uncover(self) except -1:
        """Drop entries without a key from the top."""
        while self._size and self._keys[self._heap[0].slot] is GONE:
            self._drop_top()
            self._gone -= 1
        return 0

    cdef int _sweep(self) except -1:
        """Drop all entries without a key: linear, and paid for by the removals since the last time."""
        cdef Py_ssize_t kept = 0, at
        for at in range(self._size):
            if self._keys[self._heap[at].slot] is not GONE:
                self._heap[kept], self._heap[at] = self._heap[at], self._heap[kept]
                kept += 1
        self._size = kept
        self._gone = 0
        for at in range((kept - 2) // 4, -1, -1):
            sink(self._heap, kept, at, self._heap[at])
        return 0

    cdef dict _indexed(self):
        if self._index is None:
            self._index = self._build_index()
        return self._index

    cdef dict _build_index(self):
        cdef dict index = {}
        cdef Py_ssize_t at = 0
        while at < self._size:
            slot = self._heap[at].slot
            key = self._keys[slot]
            if key in index:
                raise ValueError(f"{key!r} was pushed twice")
            index[key] = slot
            at += 1
        return index

    cdef int _grow(self) except -1:
        cdef Py_ssize_t capacity = max(16, self._capacity * 2), at
        self._heap = <Entry*>resized(self._heap, capacity * sizeof(Entry))
        self._priorities = <int64_t*>resized(self._priorities, capacity * sizeof(int64_t))
        self._keys.extend([GONE] * (capacity - self._capacity))
        for at in range(self._capacity, capacity):
            self._heap[at].slot = at
        self._capacity = capacity
        return 0


cdef void* resized(void* block, size_t size_bytes) except NULL:
    cdef void* moved = PyMem_Realloc(block, size_bytes)
    if moved is NULL:
        raise MemoryError
    return moved


cdef inline bint before(Entry* one, Entry* other) noexcept nogil:
    # Bitwise on purpose: a branch here would be mispredicted every other time.
    return (one.priority < other.priority) | ((one.priority == other.priority) & (one.arrival < other.arrival))


cdef inline void rise(Entry* heap, Py_ssize_t hole, Entry entry) noexcept nogil:
    """Write the entry at the hole or above it, where order wants it."""
    cdef Py_ssize_t parent
    while hole:
        parent = (hole - 1) // 4
        if not before(&entry, &heap[parent]):
            break
        heap[hole] = heap[parent]
        hole = parent
    heap[hole] = entry


cdef inline void sink(Entry* heap, Py_ssize_t size, Py_ssize_t hole, Entry entry) noexcept nogil:
    """Write the entry at the hole or below it, where order wants it."""
    cdef Py_ssize_t child, least, end
    while True:
        child = hole * 4 + 1
        if child >= size:
            break
        least = child
        end = min(child + 4, size)
        for child in range(child + 1, end):
            if before(&heap[child], &heap[least]):
                least = child
        if not before(&heap[least], &entry):
            break
        heap[hole] = heap[least]
        hole = least
    heap[hole] = entry
