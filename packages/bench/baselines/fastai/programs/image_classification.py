"""Classify images of clothes.

Defaults: batches of 64, Adam, learning rate 0.001 with one cycle, a head with batch norm and
dropout.
"""

from fastai.vision.all import *

dls = ImageDataLoaders.from_folder("fashion", valid="test")
learn = vision_learner(dls, resnet18, pretrained=False, metrics=accuracy)
learn.fit_one_cycle(3)
print(learn.validate()[1])
