"""`make conformance`: replay recorded runs of the published code through our search, and compare every event.

$ICM_TRACES names the folder (default: ../shared/traces, whose SPEC.md describes the files), sub-folders included.
"""

import sys

from tests.conformance import TRACES, compare

if __name__ == "__main__":
    sys.exit(compare(TRACES))
