"""Who decides: ours, and what people use today, each as a plain class on the same plant, router and budget."""
