"""Classify images of clothes.

Defaults: a fifth of train for validation, the network small_cnn at the size of the images,
flips, AdamW with one cycle of the learning rate, batch size, epochs; learner.plan lists them.
"""

from flambeau import Learner
from flambeau_vision import ImageData

learner = Learner(ImageData.from_folder("fashion"))
learner.fit()
print(learner.evaluate("test")["accuracy"])
