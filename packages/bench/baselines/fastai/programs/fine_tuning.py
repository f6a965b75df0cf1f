"""Fine-tune a pretrained network to five new classes with 100 images each.

Defaults: batches of 64, the mean and std of ImageNet, Adam, learning rates of fine_tune, an
epoch of the head alone, a head with batch norm and dropout.
"""

from fastai.vision.all import *

dls = ImageDataLoaders.from_folder("photos", valid="test")
learn = vision_learner(dls, resnet18, metrics=accuracy)
learn.fine_tune(5)
print(learn.validate()[1])
