"""What an evaluation found.

`rule` compares predictions with labels: `single` image by image, and then all of them: `evaluation`
holds the numbers where each image has one class, `labels` those where it has any number of labels,
`answers` where several classes may be right. `classes` matches the names of classes before;
`precision` is about thresholds, and `confusion` draws the mistakes, with letters from `lettering`.
"""
