"""Forecasts of a trained model, their metrics, and baselines beside them."""
