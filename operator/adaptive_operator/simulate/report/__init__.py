"""What people get of a comparison: JSON, a table, plots, and one HTML file with all of it."""
