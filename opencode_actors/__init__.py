"""Runs OpenCode agents in rootless containers and supervises them, as actors in one trio process."""
