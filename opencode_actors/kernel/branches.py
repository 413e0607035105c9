"""Which sessions are just being forked: what is copied has to stay, and what is made of it is nobody's yet."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from attrs import define, field

from opencode_actors.machines.vocabulary import SessionKey


@define(eq=False)
class Branches:
    _sources: dict[SessionKey, SessionKey] = field(factory=dict[SessionKey, SessionKey], init=False)

    def __contains__(self, key: SessionKey) -> bool:
        """Whether it is just being made."""
        return key in self._sources

    def keys(self) -> tuple[SessionKey, ...]:
        """Those that are just being made."""
        return tuple(self._sources)

    @contextmanager
    def make(self, source: SessionKey, target: SessionKey) -> Generator[None]:
        self._sources[target] = source
        try:
            yield
        finally:
            del self._sources[target]

    def why_kept(self, key: SessionKey) -> str:
        """Why it has to stay as it is; empty where it need not."""
        if key in self._sources:
            return f"session {key} is just being made, by a fork of {self._sources[key]}"
        branch = next((target for target, source in self._sources.items() if source == key), None)
        return "" if branch is None else f"session {key} is just being forked, into {branch}"
