"""Evaluation: deciders judged in the referee's worlds, against limiters without a model."""
