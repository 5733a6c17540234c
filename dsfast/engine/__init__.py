"""Decisions only: events in, effects out. No I/O, no clock, no chance, no await."""
