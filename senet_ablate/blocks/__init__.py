"""Attention blocks, one file each."""
