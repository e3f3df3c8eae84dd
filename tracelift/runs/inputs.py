"""What stands behind the paths of a run: a short hash a key, so that other files under the same name are noticed.

Files are hashed whole; of a model folder the small files are, and of its weights name, size, first and last MiB: enough
to tell models apart, without reading gigabytes at every start. Held-out problems are not here: the evaluation before
training carries their hash itself. Left out: models behind a server.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from tracelift.config import Config
from tracelift.config.key import value_of

_USED = {  # of each stage; rows, models, prompts
    "planner": "data.source planner.path planner.adapter planner.prompt executor.path executor.prompt "
    "executor.baseline_prompt reward_model.path",
    "sft": "sft.train sft.dev sft.init sft.tokenizer",
    "reward_model": "rm.train rm.dev rm.init",
}
_MIB = 1 << 20


def input_hashes(config: Config) -> dict[str, str]:
    """Key → hash of the file or folder that it names; keys that name neither (a demo, a built-in prompt) are absent."""
    found = {}
    for key in _USED[config.run.stage].split():
        path = Path(value_of(config, key).removeprefix("code:"))
        served = key in ("executor.path", "reward_model.path") and value_of(config, key.replace("path", "url"))
        if path.name and not served and path.exists():
            found[key] = hash_of(path)
    return found


def hash_of(path: Path) -> str:
    """Of a file or of a folder with the files in it. Raises OSError where they cannot be read."""
    total = hashlib.sha256()
    for file in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
        size = file.stat().st_size
        total.update(f"{file.name if path.is_dir() else ''}:{size}:".encode())
        with open(file, "rb") as f:
            if not path.is_dir() or size <= 32 * _MIB:
                while block := f.read(_MIB):
                    total.update(block)
            else:
                total.update(f.read(_MIB))
                f.seek(size - _MIB)
                total.update(f.read(_MIB))
    return total.hexdigest()[:16]
