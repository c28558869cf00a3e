# SPDX-License-Identifier: MIT
"""The presets: parameters as they were published, each with the place.

``keep_thin`` is 0 in all of them: nobody else holds thin structures.
"""

from typing import Any, Final

from ._preset import Preset


def _published(
    name: str,
    spatial: tuple[float, float] | None,
    bilateral: tuple[float, float, float],
    iterations: int,
    description: str,
    source: str,
    *,
    normalization: str = "symmetric",
    confidence: float | None = None,
) -> Preset:
    options: dict[str, Any] = {
        "spatial": spatial and tuple(map(float, spatial)),
        "bilateral": tuple(map(float, bilateral)),
        "keep_thin": 0,
        "iterations": iterations,
        "normalization": normalization,
    }
    if confidence is not None:
        options["confidence"] = confidence
    return Preset(name, description, source, options)


def _deeplab_v1(
    name: str, bilateral: tuple[float, float, float], network: str, source: str
) -> Preset:
    """Of the authors, whose CRF is the code of 2011: it divides after filtering."""
    description = f"DeepLab v1, {network}, PASCAL VOC 2012"
    return _published(name, (3.0, 3.0), bilateral, 10, description, source, normalization="after")


_AUTHORS_FILES: Final = "Chen et al., ICLR 2015; the authors' test.prototxt of "
_SECOND_HAND: Final = "Chen et al., ICLR 2015; the authors' model page, as quoted at second hand"
_SOFTMAX_OF_MASK: Final = 0.7310585786300049  # e / (1 + e): what softmax makes of 0 and 1
# Without normalisation pydensecrf's sums are so many times ours, of 2 features and of 5.
_GAIN_2: Final = 0.6664920178707688
_GAIN_5: Final = 0.4603343483712255

PUBLISHED: Final = (
    _deeplab_v1("deeplab-v1", (50, 10, 5), "4 x 4", _AUTHORS_FILES + "vgg128_noup"),
    _deeplab_v1("deeplab-v1-msc", (95, 3, 3), "4 x 4 with MSc", _SECOND_HAND),
    _deeplab_v1("deeplab-v1-coco", (67, 3, 5), "4 x 4, trained on COCO as well", _SECOND_HAND),
    _deeplab_v1("deeplab-v1-largefov", (121, 5, 4), "LargeFOV", _SECOND_HAND),
    _deeplab_v1(
        "deeplab-v1-msc-largefov",
        (83, 5, 4),
        "LargeFOV with MSc",
        _AUTHORS_FILES + "deeplab_msc_largeFOV",
    ),
    _deeplab_v1(
        "deeplab-v1-coco-largefov", (69, 5, 5), "LargeFOV, trained on COCO as well", _SECOND_HAND
    ),
    _deeplab_v1(
        "deeplab-v1-msc-coco-largefov",
        (59, 5, 4),
        "LargeFOV with MSc, trained on COCO as well",
        _SECOND_HAND,
    ),
    _published(
        "deeplab-v2",
        (1, 3),
        (67, 3, 4),
        10,
        "DeepLab v2 with ResNet-101, PASCAL VOC 2012 and COCO-Stuff, as its PyTorch port has it",
        "https://github.com/kazuto1011/deeplab-pytorch, configs/voc12.yaml and cocostuff164k.yaml",
    ),
    _published(
        "deeplab-coco",
        (1, 3),
        (67, 3, 4),
        10,
        "weakly supervised DeepLab v1 with ResNet-38 on COCO; most frequent in published programs",
        "https://github.com/Yingyue-L/deeplabv1-resnet38, tools/densecrf.py, crf_inference_coco",
    ),
    _published(
        "deeplab-resnet38-voc",
        (1, 3),
        (112, 2, 3),
        10,
        "weakly supervised DeepLab v1 with ResNet-38 on PASCAL VOC 2012",
        "https://github.com/Yingyue-L/deeplabv1-resnet38, tools/densecrf.py, crf_inference_voc12",
    ),
    _published(
        "crf-rnn",
        (3, 3),
        (160, 3, 5),
        10,
        "CRF-RNN before learning, with the iterations of its tests (5 in training)",
        "Zheng et al., ICCV 2015; https://github.com/sadeepj/crfasrnn_pytorch, crfasrnn/params.py",
        normalization="after",
    ),
    _published(
        "irn-labels",
        (3, 3),
        (50, 5, 10),
        10,
        "label maps of class activation maps, with the classes of the image alone",
        "https://github.com/jiwoon-ahn/irn, misc/imutils.py, crf_inference_label",
        confidence=0.7,
    ),
    _published(
        "psa",
        (3, 3),
        (80, 13, 10),
        10,
        "scores of class activation maps with a background; also AFA, 1-stage-wseg, SLRNet",
        "https://github.com/jiwoon-ahn/psa, tool/imutils.py, crf_inference",
    ),
    _published(
        "mctformer",
        (4, 3),
        (83, 5, 3),
        10,
        "weakly supervised segmentation, PASCAL VOC 2012",
        "https://github.com/xulianuwa/MCTformer, seg/tool/imutils.py",
    ),
    _published(
        "clip-es",
        (1, 3),
        (67, 3, 4),
        10,
        "scores of CLIP's activation maps with a background; labels below 0.95 are unsure there",
        "https://github.com/linyq2117/CLIP-ES, eval_cam_with_crf.py",
    ),
    _published(
        "stego",
        (1, 3),
        (67, 3, 4),
        10,
        "unsupervised segmentation, logits of clusters; also ReCo",
        "https://github.com/mhamilton723/STEGO, src/crf.py",
    ),
    _published(
        "cutler",
        (3, 7),
        (50, 5, 10),
        10,
        "masks of MaskCut, which softmax of 0 and 1 trusts to 0.73",
        "https://github.com/facebookresearch/CutLER, maskcut/crf.py",
        confidence=_SOFTMAX_OF_MASK,
    ),
    _published(
        "selfment",
        (2, 7),
        (20, 5, 10),
        20,
        "self-supervised masks, trusted like CutLER's",
        "https://github.com/geshang777/Selfment, utils/crf.py",
        confidence=_SOFTMAX_OF_MASK,
    ),
    _published(
        "deep-spectral",
        (3, 3),
        (80, 13, 10),
        5,
        "one-hot maps of spectral segments, through SimpleCRF (scores within 0.01 and 0.99)",
        "https://github.com/lukemelas/deep-spectral-segmentation, extract/extract.py",
    ),
    _published(
        "unet",
        (20, 3),
        (30, 20, 10),
        5,
        "foreground probabilities of a U-Net; also P-Net, anomaly detection",
        "https://github.com/DonkeyShot21/Pytorch-UNet, utils/crf.py",
    ),
    _published(
        "chameleon",
        (1, 15),
        (67, 3, 4),
        10,
        "objects in videos, DAVIS 2016",
        "https://github.com/GitGyun/chameleon, davis2016-evaluation/crf.py",
    ),
    _published(
        "construct",
        (15, 30),
        (10, 20, 50),
        5,
        "weakly supervised histopathology, with the classes of the image alone",
        "https://github.com/tom1209-netizen/ConStruct, utils/crf.py",
    ),
    _published(
        "mrbrains",
        None,
        (5, 3, 3),
        50,
        "slices of brains in magnetic resonance, scores of nine sigmoids",
        "https://github.com/pengzhiliang/MRBrainS_seg, utils/crf.py",
    ),
    _published(
        "manga-image-translator",
        (1, 3 * _GAIN_2),
        (23, 7, 20 * _GAIN_5),
        5,
        "masks of text; 3 and 20 without normalisation, times the gain of pydensecrf's sums",
        "https://github.com/zyddnys/manga-image-translator, mask_refinement/text_mask_utils.py",
        normalization="none",
        confidence=1 - 1e-5,
    ),
    _published(
        "pydensecrf",
        (3, 3),
        (80, 13, 10),
        5,
        "the example of pydensecrf; label maps trusted to 0.7",
        "https://github.com/lucasb-eyer/pydensecrf, README.md and examples/inference.py",
        confidence=0.7,
    ),
)
