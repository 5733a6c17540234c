"""The report: benchmarks are run, and what they tell becomes one HTML page and one JSON file.

python -m benchmarks.report [--short] [--html FILE] [--json FILE] [pytest options]
"""
