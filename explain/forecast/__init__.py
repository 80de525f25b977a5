"""What awaits an app soon, and how often such forecasts came true."""
