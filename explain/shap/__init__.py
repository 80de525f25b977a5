"""SHAP values of stored decisions, and what they add up to."""
