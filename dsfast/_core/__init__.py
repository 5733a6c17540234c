"""Three closed Cython kernels: priority queue, frame codec, DAG readiness. They import nothing of dsfast."""
