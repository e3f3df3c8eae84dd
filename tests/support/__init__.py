"""What tests share: tiny models and jobs, stand-in servers, oracles. Test modules import from here, never from one another."""

from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
