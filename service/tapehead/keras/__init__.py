"""Keras citizens that ship with Tapehead. Importing this registers them, so that files that hold them can be loaded."""

from __future__ import annotations

from tapehead.keras.gradient_cell import GradientCell
from tapehead.keras.gradient_monitor import GradientMonitor, GradientWarning
from tapehead.keras.records import GradientRecord

__all__ = ["GradientCell", "GradientMonitor", "GradientRecord", "GradientWarning"]
