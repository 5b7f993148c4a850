"""Published test sets, in the forms that their publishers give them.

`truth` reads which classes images have, where that does not stand in folders: ImageNet's devkit,
Caffe's list, ReaL's labels; `matlab` reads the devkit's table of classes. `flat` puts them beside
the images. `shards` reads labels in archives of WebDataset. `beside` finds files that may say
classes and splits, and that are not read.
"""
