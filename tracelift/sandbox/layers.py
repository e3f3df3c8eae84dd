"""Which layers this kernel grants, which promises they keep, and whether that is enough to run a stranger's program."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from tracelift.sandbox.inside import landlock
from tracelift.sandbox.inside.confine import LAYERS
from tracelift.sandbox.limits import SandboxError

log = logging.getLogger(__name__)

# Each promise holds if at least one of these sets of layers is active as a whole.
PROMISES: dict[str, list[set[str]]] = {
    "no network": [{"network"}, {"seccomp"}],
    "no files outside the interpreter and the working folder": [{"mount"}, {"landlock"}],
    "no surviving process, no fork bomb": [{"pid", "rlimits"}, {"seccomp"}],
    "no signal to, or tracing of, other processes": [{"pid"}, {"seccomp"}],
    "CPU, memory, file size and open files bounded": [{"rlimits"}],
    "threads of one program not counted against another's": [{"unprivileged", "own_id"}],
    "no privileges to win": [{"capabilities", "no_new_privs"}],
}
FILES = "no files outside the interpreter and the working folder"
REQUIRED = ("no network", FILES)


@dataclass(frozen=True)
class Layers:
    """reasons: for each layer '' where it is active, else why it is not."""

    reasons: dict[str, str]
    landlock_abi: int

    @property
    def active(self) -> set[str]:
        return {name for name, reason in self.reasons.items() if not reason}

    def ways(self, promise: str) -> list[set[str]]:
        """Sets of layers that keep it here. A Landlock that does not know truncation needs seccomp to refuse it."""
        old = promise == FILES and self.landlock_abi < landlock.TRUNCATION
        return [way | {"seccomp"} if old and "landlock" in way else way for way in PROMISES[promise]]

    def keeps(self, promise: str) -> bool:
        return any(way <= self.active for way in self.ways(promise))

    @property
    def missing(self) -> list[str]:
        """Required promises that nothing keeps."""
        return [promise for promise in REQUIRED if not self.keeps(promise)]

    def require(self, allow_weak_sandbox: bool) -> None:
        """Raises SandboxError if a required promise is not kept, unless that is allowed; then it warns."""
        if not self.missing:
            return
        lacking = "; ".join(f"{n}: {r}" for n, r in self.reasons.items() if r)
        text = f"the sandbox cannot promise {' or '.join(self.missing)} on this kernel ({lacking})"
        if not allow_weak_sandbox:
            raise SandboxError(
                f"{text}. Run where user namespaces, or Landlock and seccomp, are permitted; or, if every program to "
                "be run is trusted, set allow_weak_sandbox = true"
            )
        log.warning("WEAK SANDBOX: %s; untrusted programs can do harm, and allow_weak_sandbox lets them", text)

    def report(self) -> str:
        """What `python -m tracelift.sandbox --probe` prints."""
        lines = [f"layers: {len(self.active)} of {len(LAYERS)} active"]
        for name in LAYERS:
            reason = self.reasons.get(name, "not probed")
            extra = f" (ABI {self.landlock_abi})" if name == "landlock" and not reason else ""
            lines.append(f"  {'yes' if not reason else 'NO ':3s} {name}{extra}{': ' + reason if reason else ''}")
            if extra and (unwatched := landlock.unwatched(self.landlock_abi)):
                lines.append(f"      not watched by this ABI: {', '.join(unwatched)}")
        lines.append("promises:")
        for promise in PROMISES:
            kept_by = [" + ".join(sorted(way)) for way in self.ways(promise) if way <= self.active]
            lines.append(f"  kept  {promise}, by {' and by '.join(kept_by)}" if kept_by else f"  NOT KEPT  {promise}")
        return "\n".join(lines)
