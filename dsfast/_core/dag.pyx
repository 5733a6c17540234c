"""Readiness over a directed acyclic graph of the nodes 0..n-1: who may start, and whom a finished node releases.

Theory of operation. The edges live in one table of compressed sparse rows, a row of successors for each node.
It is made by gathering the edges by target and transposing that. A transpose visits its input in ascending
order, so every row comes out sorted, an edge given twice lies beside itself and is dropped, and predecessors,
when somebody asks for them, are one more transpose. That is 4 bytes an edge and 8 bytes a node, and as much
again for the edges once predecessors were asked for.

A node waits for a number of predecessors; at 0 it is ready, and it is DECIDED once settled or skipped. The
number reaches 0 once, so a node is released once. Cycles are found when the graph is built, by counting down in
the order of Kahn. Nothing here recurses, so the depth of a graph has no limit.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FULL_RO, PyBuffer_IsContiguous, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
)
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.number cimport PyNumber_Index
from libc.stdint cimport int32_t
from libc.string cimport memcpy, strcmp

# Rows are int32 and there are two more of them than nodes while they are filled.
NODES_MAX = 2**31 - 3
EDGES_MAX = 2**31 - 1

cdef int32_t DECIDED = -1


class CycleError(ValueError):
    """The graph has a cycle; `cycle` lists its nodes along the edges, the first not repeated at the end."""

    def __init__(self, cycle):
        self.cycle = cycle
        super().__init__(f"the graph has a cycle: {' -> '.join(map(str, [*cycle, cycle[0]]))}")


@cython.final
@cython.no_gc  # holds C arrays only
cdef class Dag:
    """Nodes 0..nodes-1 of which sources[i] must be done before targets[i]; an edge given twice counts once.

    The edges come as two sequences of int; buffers of C int, such as array('i'), are read fastest. Raises
    ValueError for an edge out of range or from a node to itself, and CycleError.
    """

    cdef int32_t _nodes
    cdef readonly int32_t remaining  # nodes that are not decided
    cdef Table _successors
    cdef Table _predecessors  # None until somebody asks
    cdef Ints _waiting  # how many predecessors each node waits for, or DECIDED

    def __cinit__(self, Py_ssize_t nodes, sources, targets):
        if not 0 <= nodes <= NODES_MAX:
            raise ValueError(f"a graph has 0..{NODES_MAX} nodes, not {nodes}")
        self._nodes = self.remaining = nodes
        self._successors = gathered(self._nodes, ints(sources), ints(targets)).transposed()
        self._successors.drop_repeats()
        self._waiting = self._successors.incoming()
        self._kahn()

    def __len__(self):
        return self._nodes

    def ready(self):
        """The undecided nodes that wait for nothing, ascending."""
        cdef int32_t node
        return [node for node in range(self._nodes) if self._waiting.at[node] == 0]

    def settle(self, Py_ssize_t node):
        """This node is done: returns the nodes that became ready by it, ascending.

        Raises ValueError if the node is decided already or still waits.
        """
        cdef int32_t* waiting = self._waiting.at
        cdef int32_t* items = self._successors.items
        cdef int32_t at, successor
        cdef list released = []
        self._undecided(node)
        if waiting[node] > 0:
            raise ValueError(f"node {node} still waits for {waiting[node]} of its predecessors")
        self._decide(node)
        for at in range(self._successors.rows[node], self._successors.rows[node + 1]):
            successor = items[at]
            if waiting[successor] > 0:  # the others were skipped
                waiting[successor] -= 1
                if waiting[successor] == 0:
                    released.append(successor)
        return released

    def skip(self, Py_ssize_t node):
        """This node will never be done: decides it and all that depend on it.

        Returns those dependents, without the node itself, ascending. Raises ValueError if it is decided already.
        """
        cdef Table successors = self._successors
        cdef int32_t at, successor, current = <int32_t>self._undecided(node)
        cdef Py_ssize_t seen = 0
        cdef list found = []
        self._decide(current)
        while True:
            for at in range(successors.rows[current], successors.rows[current + 1]):
                successor = successors.items[at]
                if self._waiting.at[successor] != DECIDED:
                    self._decide(successor)
                    found.append(successor)
            if seen == len(found):
                break
            current = found[seen]
            seen += 1
        found.sort()
        return found

    def decided(self, Py_ssize_t node):
        """Whether the node was settled or skipped."""
        return self._waiting.at[self._known(node)] == DECIDED

    def successors(self, Py_ssize_t node):
        """The nodes that wait for this one directly, ascending."""
        return self._successors.row(self._known(node))

    def predecessors(self, Py_ssize_t node):
        """The nodes that this one waits for directly, ascending. The first call costs a pass over all edges."""
        if self._predecessors is None:
            self._predecessors = self._successors.transposed()
        return self._predecessors.row(self._known(node))

    def order(self):
        """All nodes, decided or not, each one after its predecessors."""
        cdef Ints order = self._kahn()
        cdef int32_t at
        return [order.at[at] for at in range(self._nodes)]

    cdef Py_ssize_t _known(self, Py_ssize_t node) except -1:
        if not 0 <= node < self._nodes:
            raise ValueError(f"node {node} is not one of the graph's {self._nodes} nodes")
        return node

    cdef Py_ssize_t _undecided(self, Py_ssize_t node) except -1:
        if self._waiting.at[self._known(node)] == DECIDED:
            raise ValueError(f"node {node} is decided already")
        return node

    cdef void _decide(self, Py_ssize_t node) noexcept:
        self._waiting.at[node] = DECIDED
        self.remaining -= 1

    cdef Ints _kahn(self):
        """The nodes in a topological order. Raises CycleError."""
        cdef Table successors = self._successors
        cdef Ints waiting = successors.incoming()
        cdef Ints order = Ints(self._nodes)
        cdef int32_t node, at, successor, known = 0, seen = 0
        for node in range(self._nodes):
            if waiting.at[node] == 0:
                order.at[known] = node
                known += 1
        while seen < known:
            node = order.at[seen]
            seen += 1
            for at in range(successors.rows[node], successors.rows[node + 1]):
                successor = successors.items[at]
                waiting.at[successor] -= 1
                if waiting.at[successor] == 0:
                    order.at[known] = successor
                    known += 1
        if known < self._nodes:
            raise CycleError(cycle_among(successors, waiting))
        return order


@cython.final
@cython.no_gc
cdef class Ints:
    """Owner of a C array of int32, zeros at first."""

    cdef int32_t* at
    cdef Py_ssize_t count

    def __cinit__(self, Py_ssize_t count):
        self.at = <int32_t*>PyMem_Calloc(count, sizeof(int32_t))
        if self.at is NULL:
            raise MemoryError
        self.count = count

    def __dealloc__(self):
        PyMem_Free(self.at)


@cython.final
@cython.no_gc
cdef class Table:
    """Compressed sparse rows: those of a node are items[rows[node]] .. items[rows[node + 1] - 1].

    While a table is filled, rows[node + 1] is where the next item of the node goes: after the last one it is
    where the row of node + 1 begins.
    """

    cdef int32_t nodes
    cdef int32_t* rows
    cdef int32_t* items
    cdef Ints _rows
    cdef Ints _items

    def __cinit__(self, int32_t nodes, Py_ssize_t edges):
        self.nodes = nodes
        self._rows = Ints(<Py_ssize_t>nodes + 2)
        self._items = Ints(edges)
        self.rows = self._rows.at
        self.items = self._items.at

    cdef void sum_up(self) noexcept:
        """Turn the lengths of rows, counted at rows[node + 2], into beginnings."""
        cdef Py_ssize_t node
        for node in range(self.nodes):
            self.rows[node + 2] += self.rows[node + 1]

    cdef void add(self, int32_t node, int32_t item) noexcept:
        self.items[self.rows[node + 1]] = item
        self.rows[node + 1] += 1

    cdef Table transposed(self):
        """The same edges by their other end; every row ascending."""
        cdef Table other = Table(self.nodes, self.rows[self.nodes])
        cdef int32_t node, at
        for at in range(self.rows[self.nodes]):
            other.rows[self.items[at] + 2] += 1
        other.sum_up()
        for node in range(self.nodes):
            for at in range(self.rows[node], self.rows[node + 1]):
                other.add(self.items[at], node)
        return other

    cdef void drop_repeats(self) noexcept:
        """Keep one of equal neighbours in a row."""
        cdef int32_t node, at, begin = 0, kept = 0
        for node in range(self.nodes):
            for at in range(begin, self.rows[node + 1]):
                if at == begin or self.items[at] != self.items[at - 1]:
                    self.items[kept] = self.items[at]
                    kept += 1
            begin = self.rows[node + 1]
            self.rows[node + 1] = kept

    cdef Ints incoming(self):
        """How many edges end in each node."""
        cdef Ints counts = Ints(self.nodes)
        cdef int32_t at
        for at in range(self.rows[self.nodes]):
            counts.at[self.items[at]] += 1
        return counts

    cdef list row(self, Py_ssize_t node):
        cdef int32_t at
        return [self.items[at] for at in range(self.rows[node], self.rows[node + 1])]


cdef Table gathered(int32_t nodes, Ints sources, Ints targets):
    """The table of the sources of each target, for edges as a caller gave them."""
    cdef Py_ssize_t edge
    if sources.count != targets.count:
        raise ValueError(f"{sources.count} sources but {targets.count} targets")
    if sources.count > EDGES_MAX:
        raise ValueError(f"a graph has at most {EDGES_MAX} edges, not {sources.count}")
    cdef Table table = Table(nodes, sources.count)
    for edge in range(sources.count):
        check_edge(nodes, sources.at[edge], targets.at[edge])
        table.rows[targets.at[edge] + 2] += 1
    table.sum_up()
    for edge in range(sources.count):
        table.add(targets.at[edge], sources.at[edge])
    return table


cdef inline int check_edge(int32_t nodes, int32_t source, int32_t target) except -1:
    if not (0 <= source < nodes and 0 <= target < nodes):
        raise ValueError(f"edge {source} -> {target} leaves the graph's {nodes} nodes")
    if source == target:
        raise ValueError(f"node {source} depends on itself")
    return 0


cdef Ints ints(values):
    """A copy of a sequence of int or of a buffer."""
    cdef Py_buffer view
    if PyObject_CheckBuffer(values):
        PyObject_GetBuffer(values, &view, PyBUF_FULL_RO)
        try:
            if view.ndim == 1 and PyBuffer_IsContiguous(&view, b"C") and is_int32(&view):
                return ints_of_buffer(&view)
        finally:
            PyBuffer_Release(&view)
    return ints_of_sequence(values)


cdef bint is_int32(Py_buffer* view) noexcept:
    return view.itemsize == sizeof(int32_t) and view.format is not NULL and strcmp(view.format, b"i") == 0


cdef Ints ints_of_buffer(Py_buffer* view):
    cdef Ints copy = Ints(view.len // view.itemsize)
    if view.len:
        memcpy(copy.at, view.buf, view.len)
    return copy


cdef Ints ints_of_sequence(values):
    cdef Ints copy = Ints(len(values))
    cdef Py_ssize_t at
    try:
        for at, value in enumerate(values):
            if at == copy.count:
                raise ValueError("the edges changed while they were read")
            copy.at[at] = PyNumber_Index(value)
    except OverflowError:
        raise ValueError(f"an edge names node {value}, which no graph has") from None
    return copy


cdef list cycle_among(Table successors, Ints waiting):
    """A cycle of the nodes that still wait: the shortest one through a node that is on any."""
    cdef int32_t start = node_on_cycle(successors.transposed(), waiting), node, successor, at
    cdef Ints came_from = Ints(successors.nodes)  # 0 for not reached, else a node + 1
    cdef list reached = [start]
    for node in reached:
        for at in range(successors.rows[node], successors.rows[node + 1]):
            successor = successors.items[at]
            if successor == start:
                return path_to(node, start, came_from)
            if waiting.at[successor] > 0 and came_from.at[successor] == 0:
                came_from.at[successor] = node + 1
                reached.append(successor)
    raise AssertionError(f"node {start} is on a cycle, but no path leads back to it")


cdef int32_t node_on_cycle(Table predecessors, Ints waiting) except -1:
    """Walk back from a waiting node: each has a waiting predecessor, so some node comes up twice."""
    cdef Ints visited = Ints(predecessors.nodes)
    cdef int32_t node = 0, at
    while waiting.at[node] == 0:
        node += 1
    while not visited.at[node]:
        visited.at[node] = 1
        at = predecessors.rows[node]
        while waiting.at[predecessors.items[at]] == 0:
            at += 1
        node = predecessors.items[at]
    return node


cdef list path_to(int32_t node, int32_t start, Ints came_from):
    cdef list path = [node]
    while node != start:
        node = came_from.at[node] - 1
        path.append(node)
    path.reverse()
    return path
