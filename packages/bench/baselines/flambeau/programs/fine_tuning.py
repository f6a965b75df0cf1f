"""Fine-tune a pretrained network to five new classes with 100 images each.

Defaults: a fifth of train for validation, ResNet-18, the mean and std of the weights, flips, an
epoch of the head alone, a lower learning rate in early layers, batch size; learner.plan lists
them.
"""

from flambeau import Learner
from flambeau_vision import ImageData

learner = Learner(ImageData.from_folder("photos", size=32), choices={"weights": "DEFAULT"})
learner.fine_tune(5)
print(learner.evaluate("test")["accuracy"])
