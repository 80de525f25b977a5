"""How pages show numbers, times and charts, so that each looks the same everywhere."""
