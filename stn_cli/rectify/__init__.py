"""Rectifying images with a checkpoint. Imports no torch unless an accelerator is asked for."""
