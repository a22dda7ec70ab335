"""Which models are in device memory, and for how long.

repository.py   a folder of model files -> names, versions, paths       (no TensorFlow)
residents.py    the models in memory: used, kept, evicted by a budget   (no TensorFlow)
screening.py    a .keras file -> a Keras model, or why it is not served
device.py       the device a worker runs on, and how TensorFlow is set up for it
"""
