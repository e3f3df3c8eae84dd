"""The sandbox that the attacks of this room are tried in, and what they must not reach."""

from support.attacks import box, victim

__all__ = ["box", "victim"]
