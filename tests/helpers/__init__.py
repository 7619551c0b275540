"""What several test modules need: small networks and tasks, arms and pools, studies and records.

Test modules import from here and never from each other.
"""

from pathlib import Path

ROOT = Path(__file__).parents[2]
