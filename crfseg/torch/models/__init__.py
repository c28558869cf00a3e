# SPDX-License-Identifier: MIT
"""The networks that dense CRFs came with, exact to their papers: one network, one file, one paper.

``deeplab_v1``, ``fcn``, ``segnet``, ``unet`` and ``vgg16`` make them, ``load_weights`` and
``load_imagenet_weights`` read what was published for them from a file of yours, ``describe`` prints
what their layers see. Nothing is fetched.
"""

from .deeplab_v1 import DeepLabV1, deeplab_v1
from .describe import Description, Layer, describe
from .fcn import FCN, fcn
from .segnet import SegNet, segnet
from .shift_and_stitch import shift_and_stitch
from .unet import UNet, unet
from .vgg16 import VGG16, convolutional, decimate, vgg16
from .weights import load_imagenet_weights, load_weights, to_caffe_input

__all__ = [
    "FCN",
    "VGG16",
    "DeepLabV1",
    "Description",
    "Layer",
    "SegNet",
    "UNet",
    "convolutional",
    "decimate",
    "deeplab_v1",
    "describe",
    "fcn",
    "load_imagenet_weights",
    "load_weights",
    "segnet",
    "shift_and_stitch",
    "to_caffe_input",
    "unet",
    "vgg16",
]
