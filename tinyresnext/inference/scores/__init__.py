"""What an evaluation found.

`evaluation` holds the numbers where each image has one class, `labels` those where it has any
number of labels; `precision` is about thresholds, and `confusion` draws the mistakes,
with letters from `lettering`.
"""
