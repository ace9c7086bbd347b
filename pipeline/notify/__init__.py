"""Telling people what a night brought: digests of what was flagged, alerts, once each.

Belongs here: which channel, and telling nothing twice. Does not: what is worth telling (monitoring/).
"""
