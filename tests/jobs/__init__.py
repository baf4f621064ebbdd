"""What users hold of durable jobs, and how attempts run, over every engine."""
