"""Forecasts of an app's next refusal, and the record of how often they came true."""
