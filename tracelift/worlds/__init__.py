"""Procedural task families whose truth is known exactly: the embedded demo (DESIGN: "the demo world")."""
