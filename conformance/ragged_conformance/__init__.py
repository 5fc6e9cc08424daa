"""The conformance suite: every promise of `ragged`, on every backend, against a NumPy oracle.

Run it on any installation, or on a backend of your own:

    pytest -p ragged_conformance.plugin --pyargs ragged_conformance --backend torch --dtype float64
"""
