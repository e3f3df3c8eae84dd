"""Procedural problems whose truth is known exactly: the embedded demos. math/, code/, and tasks, which makes them tasks.
build/ trains the demos' models."""
