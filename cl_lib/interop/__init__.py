"""Conversions to other libraries, each of which must be imported explicitly."""
