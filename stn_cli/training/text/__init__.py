"""Rendered words with exactly known geometry: what is written, in which font, bent how, photographed how."""
