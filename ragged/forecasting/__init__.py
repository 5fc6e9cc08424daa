"""Forecasting of tables: `Forecaster` from Python, and what the command line shares with it."""

from ragged.forecasting.forecaster import Forecaster

__all__ = ["Forecaster"]
