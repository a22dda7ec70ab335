"""Keras citizens that ship with Tapehead. Importing this registers them, so that files that hold them can be loaded."""

from __future__ import annotations

from tapehead.keras.gradient_cell import GradientCell

__all__ = ["GradientCell"]
